"""Every kind of fault: what is damaged, how, and what the product does with it then."""

from __future__ import annotations

import contextlib
import errno
import gzip
import io
import json
import os
import resource
import shutil
import struct
import subprocess
import sys
import wave
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache as cache_of_functions
from itertools import count
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

import sekron_edge as se
from sekron_edge import cache, cli, files
from sekron_edge.artifacts import Artifact, TensorSpec, get_exporter
from sekron_edge.bundle import (
    Counts,
    Delivery,
    Golden,
    Manifest,
    Score,
    pack,
    read_manifest,
    rebuild,
    verify_bundle,
)
from sekron_edge.data import image_folder
from sekron_edge.data._arrays import read_arrays
from sekron_edge.data._coco import read_coco
from sekron_edge.data._files import FileTree
from sekron_edge.data._sources import fashion_mnist
from sekron_edge.data._wav import decode_wav
from sekron_edge.devices import load_profile
from sekron_edge.errors import BundleError
from sekron_edge.exporters.tflite._adopt import inputs_and_outputs
from sekron_edge.exporters.tflite._graph import read_file
from sekron_edge.latency import LatencyModel
from sekron_edge.measurement import Conditions, MeasurementRequest, MeasurementStore, user_devices
from sekron_edge.measurement._protocol import read_answer, read_outputs
from sekron_edge.pipeline import load_config
from sekron_edge.pipeline._checkpoints import load_weights
from sekron_edge.pipeline._output import claimed
from sekron_edge.pipeline._work import Work
from tests.campaign.faults import bytes_altered, json_altered, text_altered
from tests.campaign.subjects import Accepting, Subject
from tests.cost_models import MacsAreTime
from tests.tflite_files import FileOf

_PROFILES = Path(se.__file__).parent / "profiles"


# Bundles


def network() -> nn.Module:
    """A small one: seconds count."""
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(128, 3)).eval()


@cache_of_functions
def planned() -> se.Plan:
    """A plan for that network: made in the process that all others are forked from."""
    torch.manual_seed(0)
    budget = se.Budget(macs="0.7x")
    return se.score(network(), (torch.randn(1, 1, 8, 8),), MacsAreTime()).plan(budget, profile="host", runtime="litert")


def _bundle(out: Path, *, sign: Path | None = None) -> Path:
    """A bundle whose artifact no runtime takes: what is done to the bundle must be refused before that is tried."""
    torch.manual_seed(0)
    x = torch.randn(4, 1, 8, 8)
    plan = planned()
    model = se.decompose(network(), plan)
    work = out.with_name("work")
    work.mkdir()
    (work / "model_fp32.tflite").write_bytes(bytes(range(256)) * 4)
    given = TensorSpec(name="input", shape=(1, 1, 8, 8), dtype="float32", place="input_0")
    found = TensorSpec(name="output", shape=(1, 3), dtype="float32", place="output_0")
    artifact = Artifact.describe(
        work / "model_fp32.tflite", format="litert", precision="fp32", inputs=[given], outputs=[found], versions={}
    )
    counts = Counts(parameters=plan.dense.parameters, macs=plan.dense.macs)
    manifest = Manifest(
        name="test",
        created_at=datetime.now(UTC),
        profile="host",
        runtime="litert",
        task="classification",
        labels=("a", "b", "c"),
        normalization=None,
        inputs=(given,),
        outputs=(found,),
        budget=plan.budget,
        results=(),
        score=Score(metric="accuracy", unit="%", dense=0.9, delivered=0.89, samples=10),
        dense=counts,
        delivered=counts,
        deliveries=(
            Delivery(artifact=artifact, check=None, measured=None, dense_bytes=9, dense_measured=None, snippet=""),
        ),
        versions={"torch": torch.__version__},
        seed=0,
        files={},
    )
    pack(manifest, plan, Golden((x.numpy(),), (model(x).detach().numpy(),)), model.state_dict(), out, sign=sign)
    files.remove_folder(work)
    return out


def _sealed(bundle: Path) -> None:
    """Make the seal true of the manifest."""
    seal = f"{files.sha256(bundle / 'manifest.json')}  manifest.json\n"
    (bundle / "manifest.json.sha256").write_text(seal)


def _hashed_again(bundle: Path, victim: Path) -> None:
    """Make the manifest true of an altered file, and the seal true of the manifest, as whoever altered it would."""
    path = bundle / "manifest.json"
    if victim != path:
        manifest = json.loads(path.read_text())
        name = victim.relative_to(bundle).as_posix()
        manifest["files"][name] = {"sha256": files.sha256(victim), "size_bytes": victim.stat().st_size}
        path.write_text(json.dumps(manifest, indent=2) + "\n")
    _sealed(bundle)


def bundle_damaged(folder: Path) -> Subject:
    """A file of a bundle altered."""
    bundle = _bundle(folder / "out")
    victims = tuple(files.files_below(bundle))
    return Subject(
        folder, lambda: verify_bundle(bundle), victims, bytes_altered, Accepting.NEVER, refusals=(BundleError,)
    )


def bundle_entries(folder: Path) -> Subject:
    """A bundle with an entry too many, too few, or of another kind."""
    bundle, outside = _bundle(folder / "out"), folder / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    whole = {path: path.read_bytes() for path in files.files_below(bundle)}

    def harm(drawn: Random) -> None:
        path = drawn.choice(list(whole))
        new = drawn.choice([bundle, *{one.parent for one in whole}]) / drawn.choice(
            ["more", ".hidden", "ä b", "x.json"]
        )
        match drawn.randrange(9):
            case 0:
                path.unlink()
            case 1:
                path.rename(path.with_name("renamed"))
            case 2:
                path.unlink()
                path.symlink_to(outside / "secret")
            case 3:
                new.write_bytes(b"")
            case 4:
                new.mkdir()
            case 5:
                new.symlink_to(drawn.choice([str(outside), "absent", "."]))
            case 6:
                os.mkfifo(new)
            case 7:
                path.unlink()
                path.mkdir()
            case _:
                path.unlink()
                os.mkfifo(path)

    def undo() -> None:
        for path in sorted(bundle.rglob("*"), reverse=True):
            if path not in whole or path.is_symlink() or not path.is_file():
                if path.is_dir() and not path.is_symlink():
                    with contextlib.suppress(OSError):
                        path.rmdir()
                else:
                    path.unlink()

    return Subject(
        folder,
        lambda: verify_bundle(bundle),
        accepting=Accepting.NEVER,
        harm=harm,
        undo=undo,
        refusals=(BundleError,),
    )


def bundle_signed(folder: Path) -> Subject:
    """A signed bundle altered, and hashed again by whoever altered it."""
    key = folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    bundle = _bundle(folder / "out", sign=key)
    named = ("manifest.json", "plan.json", "report.html", "weights.safetensors", "golden/outputs.safetensors",
             "artifacts/model_fp32.tflite", "manifest.json.sig")  # fmt: skip

    def alter(content: bytes, drawn: Random) -> bytes:
        if content.startswith(b"-----BEGIN"):
            return _sign_altered(content, drawn)
        return (json_altered if content.startswith(b"{") else bytes_altered)(content, drawn)

    def after(victim: Path) -> None:
        if victim.suffix != ".sig":
            _hashed_again(bundle, victim)

    return Subject(
        folder,
        lambda: verify_bundle(bundle, trusted=key.with_suffix(".pub")),
        tuple(bundle / name for name in named),
        alter,
        Accepting.NEVER,
        after=after,
        refusals=(BundleError,),
    )


def _sign_altered(signature: bytes, drawn: Random) -> bytes:
    """Another sign in the base64 of a signature; not among the last, which hold bits that mean nothing."""
    lines = signature.splitlines(keepends=True)
    row = drawn.randrange(1, len(lines) - 2)
    at = drawn.randrange(len(lines[row]) - 1)
    other = drawn.choice([sign for sign in b"ABCDEFGHabcdefgh0123456789+/" if sign != lines[row][at]])
    lines[row] = lines[row][:at] + bytes([other]) + lines[row][at + 1 :]
    return b"".join(lines)


def manifest_sealed_again(folder: Path) -> Subject:
    """A manifest that says something else, sealed again."""
    bundle = _bundle(folder / "out")

    def sound(found: Manifest) -> bool:
        numbers = [found.dense.macs, found.delivered.parameters, found.score.samples]
        numbers += [entry.size_bytes for entry in found.files.values()]
        names = [*found.files, *(str(delivery.artifact.path) for delivery in found.deliveries)]
        return min(numbers) >= 0 and all(".." not in Path(name).parts and name[0] != "/" for name in names)

    return Subject(
        folder,
        lambda: read_manifest(bundle),
        (bundle / "manifest.json",),
        json_altered,
        sound=sound,
        after=lambda _: _sealed(bundle),
    )


def weights_of_a_bundle(folder: Path) -> Subject:
    """The weights or the plan of a bundle altered; the model is rebuilt from them."""
    bundle = _bundle(folder / "out")

    def alter(content: bytes, drawn: Random) -> bytes:
        return (json_altered if content.startswith(b"{\n") else bytes_altered)(content, drawn)

    def sound(model: nn.Module) -> bool:
        return all(bool(torch.isfinite(value).all()) for value in model.state_dict().values())

    return Subject(
        folder,
        lambda: rebuild(bundle, network()),
        (bundle / "weights.safetensors", bundle / "plan.json", bundle / "golden" / "inputs.safetensors"),
        alter,
        sound=sound,
    )


def packing_killed(folder: Path) -> Subject:
    """A bundle's packing killed before one of its steps, as by a power cut; the next start brings order."""
    out = folder / "out"
    old, new = {"a": "old"}, {"a": "new", "b/c": "new"}

    def read() -> dict[str, str]:
        return {path.relative_to(out).as_posix(): path.read_text() for path in files.files_below(out)}

    def put() -> None:
        files.remove_folder(out)
        out.mkdir()
        (out / "a").write_text("old")

    put()

    def killed(at: int, *, without_exchange: bool) -> None:
        """In a process of its own, which dies before its step of that number."""
        count = 0

        def step(event: str, _: Any) -> None:
            nonlocal count
            if event == "open" or event.startswith(("os.", "shutil.", "tempfile.")):
                if count == at:
                    os._exit(9)
                count += 1

        if without_exchange:
            files._swapped = lambda *_: False
        sys.addaudithook(step)
        with files.whole_folder(out) as temporary:
            (temporary / "a").write_text("new")
            (temporary / "b").mkdir()
            (temporary / "b" / "c").write_text("new")

    def harm(drawn: Random) -> None:
        put()
        child = os.fork()
        if not child:
            try:
                killed(drawn.randrange(60), without_exchange=drawn.random() < 0.5)
            finally:
                os._exit(0)
        os.waitpid(child, 0)

    def use() -> dict[str, str]:
        files.recover(out)
        return read()

    def sound(found: dict[str, str]) -> bool:
        return found in (old, new) and list(folder.iterdir()) == [out]

    return Subject(folder, use, harm=harm, undo=put, sound=sound)


def disk_full(folder: Path) -> Subject:
    """A file that becomes as large as the disk has room."""
    path = folder / "kept.json"
    path.write_text("old")
    new = "new" * 10_000

    def harm(drawn: Random) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (drawn.randrange(2 * len(new)), resource.RLIM_INFINITY))

    def undo() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def use() -> str:
        try:
            files.write_text(path, new)
        except OSError as error:
            if error.errno != errno.EFBIG:
                raise
        finally:
            undo()
        return path.read_text()

    def sound(found: str) -> bool:
        path.write_text("old")
        return found in ("old", new)

    return Subject(folder, use, harm=harm, undo=undo, sound=sound)


# What users write


_JOB = """
name = "net"
task = "classification"
seed = 1

[model]
factory = "net.py:make"
weights = "weights.safetensors"
args = { width = 8, layers = [1, 2] }

[data]
source = "folder"
path = "images"
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]

[target]
profile = "raspberry-pi-4"
runtime = "litert"
formats = ["litert", "executorch"]
precisions = ["fp32", "int8"]

[budget]
latency_ms = "0.5x"
accuracy_drop = 0.01

[finetune]
epochs = 2
batch_size = 16

[plan]
only = ["backbone.*"]
"""


def job_file(folder: Path) -> Subject:
    """A job's file, written wrongly."""
    (folder / "net.py").write_text("import torch\n\n\ndef make(width, layers):\n    return torch.nn.Linear(width, 2)\n")
    path = folder / "job.toml"
    path.write_text(_JOB)
    return Subject(folder, lambda: load_config(path), (path,), text_altered)


def profile(folder: Path) -> Subject:
    """A device's profile, written wrongly."""
    names = ("raspberry-pi-5.toml", "stm32f746.toml", "iphone-15.toml", "pixel-8.toml")
    for name in names:
        shutil.copyfile(_PROFILES / name, folder / name)
    return Subject(
        folder,
        lambda: [load_profile(folder / name) for name in names],
        tuple(folder / name for name in names),
        text_altered,
    )


def devices_file(folder: Path) -> Subject:
    """devices.toml, written wrongly."""
    path = folder / "devices.toml"
    path.write_text('[board]\nhost = "pi.local"\nuser = "pi"\n\n[phone]\nhost = "1234"\ncool_celsius = 40\n')

    def use() -> object:
        with mock.patch.dict(os.environ, {"SEKRON_EDGE_DEVICES": str(path)}):
            return user_devices()

    return Subject(folder, use, (path,), text_altered)


def command_line(folder: Path) -> Subject:
    """A command line, written wrongly."""
    (folder / "job.toml").write_text(_JOB)
    (folder / "x.json").write_text("{}")
    (folder / "bundle").mkdir()
    (folder / "bundle" / "manifest.json").write_text('{"name": "a web app"}')
    words = [
        "run", "plan", "export", "verify", "sign", "bench", "measurements", "profiles", "list", "show", "check",
        "compare", "--out", "--json", "--device", "--frontier", "--macs", "0.5x", "-1", "nan", "ssh:", "adb:x", "local",
        "raspberry-pi-4", "raspbery-pi-4", str(folder / "job.toml"), str(folder / "absent"), str(folder / "bundle"),
        str(folder), str(folder / "x.json"), "", "--", "--trusted", "--key", "--precision", "int9", "--shape", "1,a",
        "os:getcwd", "absent.py:make", "99999999999999999999", "--format", "\0", "é",
    ]  # fmt: skip
    given: list[str] = []

    def harm(drawn: Random) -> None:
        given[:] = [drawn.choice(words) for _ in range(drawn.randrange(1, 6))]

    def use() -> object:
        stream = io.StringIO()
        with (
            mock.patch.object(sys, "argv", ["sekron-edge", *given]),
            contextlib.redirect_stdout(stream),
            contextlib.redirect_stderr(stream),
            contextlib.chdir(folder),
            mock.patch.dict(os.environ, {"SEKRON_EDGE_CACHE": str(folder / "cache")}),
        ):
            try:
                cli.main()
            except SystemExit as ended:
                return given, ended.code, stream.getvalue()
        return given, 0, stream.getvalue()

    def sound(found: tuple[list[str], int, str]) -> bool:
        _, code, said = found
        return code in (0, 2, 3, 4, 5) and "Traceback" not in said and (code == 0 or bool(said.strip()))

    return Subject(folder, use, harm=harm, sound=sound, ours=(folder / "cache", folder / "dist"))


# Weights and checkpoints


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


# Data


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


# The cache, the store, unfinished jobs


def kept_result(folder: Path) -> Subject:
    """A file of the cache, damaged."""
    model = LatencyModel.estimated(gmacs_per_second=10, values_per_microsecond=1000, call_us=1)
    path = folder / "latency.json"

    def use() -> object:
        found = cache.cached(
            path,
            read=lambda path: LatencyModel.model_validate_json(path.read_bytes()),
            make=lambda: model,
            write=lambda made, path: path.write_text(made.model_dump_json()),
        )
        return found.model_dump_json()

    use()
    victims = (path, path.with_name("latency.json.sha256"))
    return Subject(folder, use, victims, bytes_altered, Accepting.UNCHANGED, ours=(folder,))


def kept_measurements(folder: Path) -> Subject:
    """The store of measurements, damaged."""
    store = MeasurementStore(folder / "measurements.sqlite")
    store.measurements()

    def use() -> object:
        return store.measurements(), store.calibrations()

    return Subject(folder, use, (store.path,), bytes_altered, ours=(folder,))


def unfinished_job(folder: Path) -> Subject:
    """The plan or the state of an unfinished job, damaged."""
    out, work = folder / "out", folder / "out.work"
    with claimed(out, resume=False) as output:
        Work(output, {"seed": "1"}).keep(planned())

    def use() -> object:
        with claimed(out, resume=True) as output:
            return Work(output, {"seed": "1"}).plan()

    use()
    return Subject(folder, use, (work / "plan.json", work / "job.json"), json_altered, ours=(work,))


# Boards


_SPEC = TensorSpec(name="x", shape=(1, 2), dtype="float32")


def _request(folder: Path) -> MeasurementRequest:
    path = folder / "model.tflite"
    path.write_bytes(b"model" * 100)
    artifact = Artifact.describe(path, format="litert", precision="fp32", inputs=[_SPEC], outputs=[_SPEC], versions={})
    return MeasurementRequest((artifact,), Conditions(), token="0123456789abcdef")


def answers(folder: Path) -> Subject:
    """A board's answer, altered on its way or made up."""
    request = _request(folder)
    path = folder / "answer"
    timing = {"runtime": "r", "runtime_version": "1", "timed": "call", "measurable": True, "settled": True,
              "milliseconds": [0.001] * 50, "peak_memory_bytes": None}  # fmt: skip
    answer = {"token": request.token, "machine": "armv8", "system": "Linux", "python": "3.8", "cores": 4,
              "affinity": None, "elapsed_s": 1.0, "before": {}, "after": {}, "timings": [timing]}  # fmt: skip
    path.write_text(json.dumps(answer))

    def use() -> Any:
        return read_answer(request, path.read_bytes(), seconds=1.0, device="board")

    def sound(found: Any) -> bool:
        times = found.timings[0].milliseconds
        return bool(min(times) > 0 and sum(times) < 1200 and found.token == request.token)

    return Subject(folder, use, (path,), json_altered, sound=sound)


def outputs(folder: Path) -> Subject:
    """A board's outputs, altered on their way or made up."""
    (artifact,) = _request(folder).artifacts
    path = folder / "outputs.npz"
    named: dict[str, Any] = {"0": np.ones((3, 1, 2), np.float32)}
    np.savez(path, **named)

    def sound(found: tuple[Any, ...]) -> bool:
        return [each.shape[1:] for each in found] == [(2,)]

    def use() -> Any:
        return read_outputs(artifact, path, "board")

    return Subject(folder, use, (path,), bytes_altered, sound=sound)


# Artifacts of others


def tflite(folder: Path) -> Subject:
    """A .tflite, damaged: what is read of it before any runtime sees it."""
    file = FileOf()
    graph = file.graph()
    x, y = graph.tensor([1, 4], scales=[0.5]), graph.tensor([1, 3], scales=[2.0])
    weights = graph.tensor([3, 4], data=np.ones((3, 4), np.int8), scales=[0.5])
    graph.operator("FULLY_CONNECTED", [x, weights, -1], [y], ("FullyConnectedOptions", {}))
    graph.inputs, graph.outputs = [x], [y]
    path = folder / "net.tflite"
    path.write_bytes(file.content())

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


KINDS: dict[str, Callable[[Path], Subject]] = {
    "bundle, a file altered": bundle_damaged,
    "bundle, an entry too many or too few": bundle_entries,
    "bundle, signed, altered and hashed again": bundle_signed,
    "manifest, sealed again": manifest_sealed_again,
    "weights and plan of a bundle": weights_of_a_bundle,
    "packing, killed at any step": packing_killed,
    "disk, full": disk_full,
    "job file": job_file,
    "device profile": profile,
    "devices.toml": devices_file,
    "command line": command_line,
    "weights, safetensors": safetensors,
    "checkpoint, torch.save": checkpoint,
    "images": images,
    "zip of images": zips,
    "IDX": idx,
    "arrays, npz": arrays,
    "recording, WAV": sounds,
    "boxes, COCO's JSON": boxes,
    "cache": kept_result,
    "measurement store": kept_measurements,
    "unfinished job": unfinished_job,
    "board's answer": answers,
    "board's outputs": outputs,
    ".tflite": tflite,
    ".mlpackage": mlpackage,
}


@contextlib.contextmanager
def prepared(kind: str, folder: Path) -> Iterator[Subject]:
    """Yield the subject of a kind, in a folder of its own."""
    place = folder / "subject"
    place.mkdir()
    yield KINDS[kind](place)
