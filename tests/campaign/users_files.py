"""Faults of what users bring: weights, images, arrays, recordings, and artifacts of others."""

from __future__ import annotations

import gzip
import io
import json
import struct
import wave
import zipfile
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

import sekron_edge as se
from sekron_edge import files
from sekron_edge.artifacts import TensorSpec, get_exporter
from sekron_edge.data import image_folder
from sekron_edge.data._arrays import read_arrays
from sekron_edge.data._coco import read_coco
from sekron_edge.data._files import FileTree
from sekron_edge.data._sources import fashion_mnist
from sekron_edge.data._wav import decode_wav
from sekron_edge.exporters.tflite._adopt import inputs_and_outputs
from sekron_edge.exporters.tflite._graph import read_file
from sekron_edge.pipeline._checkpoints import load_weights
from tests.campaign.faults import bytes_altered, json_altered
from tests.campaign.subjects import Subject
from tests.small_bundle import network
from tests.tflite_files import linear


def safetensors(folder: Path) -> Subject:
    """Weights in safetensors, damaged."""
    path = folder / "weights.safetensors"
    save_file(network().state_dict(), path)
    return Subject(folder, lambda: load_weights(network(), path), (path,), bytes_altered)


def checkpoint(folder: Path) -> Subject:
    """A checkpoint of torch.save, damaged."""
    path = folder / "last.pt"
    torch.save({"epoch": 3, "ema": {"state_dict": {f"module.{k}": v for k, v in network().state_dict().items()}}}, path)
    return Subject(folder, lambda: load_weights(network(), path), (path,), bytes_altered)


def _picture(seed: int, kind: str) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def images(folder: Path) -> Subject:
    """An image of a folder of them, damaged."""
    kinds = ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"]
    seeds = count()  # each another picture: copies of training images are not held out
    for split in ("train", "test"):
        for name in ("ant", "bee"):
            for index, kind in enumerate(kinds):
                path = folder / "images" / split / name / f"{index}.{kind.lower()}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(_picture(next(seeds), kind))
    victims = tuple(files.files_below(folder / "images"))

    def sound(found: Any) -> bool:
        return all(part.dtype == torch.uint8 for part in (found.train_images, found.heldout_images))

    return Subject(folder, lambda: image_folder(folder / "images"), victims, bytes_altered, sound=sound)


def zips(folder: Path) -> Subject:
    """A zip of images, damaged."""
    seeds = count()
    for number, method in enumerate((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)):
        with zipfile.ZipFile(folder / f"{number}.zip", "w", method) as archive:
            for split in ("train", "test"):
                for name in ("ant", "bee"):
                    archive.writestr(f"{split}/{name}/0.png", _picture(next(seeds), "PNG"))
    paths = (folder / "0.zip", folder / "1.zip")

    def use() -> Any:
        return [image_folder(path) for path in paths]

    return Subject(folder, use, paths, bytes_altered)


def idx(folder: Path) -> Subject:
    """Fashion-MNIST's files, damaged, packed or within."""
    sizes = {"train-images-idx3": (4, 3, 3), "train-labels-idx1": (4,), "t10k-images-idx3": (2, 3, 3),
             "t10k-labels-idx1": (2,)}  # fmt: skip
    paths = [folder / f"{name}-ubyte.gz" for name in sizes]
    for path, shape in zip(paths, sizes.values(), strict=True):
        head = bytes((0, 0, 8, len(shape))) + struct.pack(f">{len(shape)}I", *shape)
        path.write_bytes(gzip.compress(head + bytes(int(np.prod(shape)))))

    def alter(content: bytes, drawn: Random) -> bytes:
        if drawn.random() < 0.5:
            return bytes_altered(content, drawn)
        return gzip.compress(bytes_altered(gzip.decompress(content), drawn))

    return Subject(folder, lambda: fashion_mnist(folder), tuple(paths), alter)


def arrays(folder: Path) -> Subject:
    """Arrays of inputs and targets, damaged."""
    path = folder / "rows.npz"
    np.savez(path, inputs=np.ones((4, 2), np.float32), targets=np.ones((4, 1), np.float32))
    return Subject(folder, lambda: read_arrays(path), (path,), bytes_altered)


def sounds(folder: Path) -> Subject:
    """A recording, damaged."""
    path = folder / "yes.wav"
    with wave.open(str(path), "wb") as written:
        written.setparams((1, 2, 8000, 0, "NONE", "not compressed"))
        written.writeframes(np.arange(400, dtype=np.int16).tobytes())

    def sound(found: tuple[int, torch.Tensor]) -> bool:
        rate, values = found
        return rate > 0 and bool(torch.isfinite(values).all())

    return Subject(folder, lambda: decode_wav(path.read_bytes(), path.name), (path,), bytes_altered, sound=sound)


def boxes(folder: Path) -> Subject:
    """COCO's JSON, damaged or written wrongly."""
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes(_picture(0, "PNG"))
    content = {
        "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 7, "bbox": [0, 0, 3, 2.5], "iscrowd": 0},
            {"id": 2, "image_id": 1, "category_id": 8, "bbox": [1, 1, 2, 2]},
        ],
        "categories": [{"id": 7, "name": "ant"}, {"id": 8, "name": "bee"}],
    }
    path = folder / "boxes.json"
    path.write_text(json.dumps(content, indent=1))

    def use() -> dict[str, Any]:
        return read_coco(FileTree(folder), "boxes.json", "")

    def sound(found: dict[str, Any]) -> bool:
        return all(bool(torch.isfinite(each.boxes).all()) for each in found.values())

    return Subject(folder, use, (path,), json_altered, sound=sound)


def tflite(folder: Path) -> Subject:
    """A .tflite, damaged: what is read of it before any runtime sees it."""
    path = folder / "net.tflite"
    path.write_bytes(linear().content())

    def sound(found: tuple[list[TensorSpec], list[TensorSpec]]) -> bool:
        return all(min(spec.shape, default=1) > 0 for specs in found for spec in specs)

    return Subject(folder, lambda: inputs_and_outputs(read_file(path), path), (path,), bytes_altered, sound=sound)


def mlpackage(folder: Path) -> Subject:
    """A file of an .mlpackage, damaged: read and evaluated by the reference evaluator."""
    torch.manual_seed(0)
    x = torch.randn(1, 4)
    artifact = se.export(nn.Linear(4, 3).eval(), (x,), format="coreml", out=folder)
    exporter = get_exporter("coreml")

    def use() -> Any:
        return exporter.load(artifact).run([x.numpy()])

    def sound(found: Any) -> bool:
        return [each.shape for each in found] == [(1, 3)]

    return Subject(folder, use, tuple(files.files_below(artifact.path)), bytes_altered, sound=sound)
