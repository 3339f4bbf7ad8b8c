"""Every kind of fault: what is damaged, how, and what the product does with it then."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.campaign import boards, bundles, our_files, texts, users_files
from tests.campaign.subjects import Subject

KINDS: dict[str, Callable[[Path], Subject]] = {
    "bundle, a file altered": bundles.bundle_damaged,
    "bundle, an entry too many or too few": bundles.bundle_entries,
    "bundle, signed, altered and hashed again": bundles.bundle_signed,
    "manifest, sealed again": bundles.manifest_sealed_again,
    "weights and plan of a bundle": bundles.weights_of_a_bundle,
    "packing, killed at any step": bundles.packing_killed,
    "disk, full": bundles.disk_full,
    "job file": texts.job_file,
    "device profile": texts.profile,
    "devices.toml": texts.devices_file,
    "command line": texts.command_line,
    "weights, safetensors": users_files.safetensors,
    "checkpoint, torch.save": users_files.checkpoint,
    "images": users_files.images,
    "zip of images": users_files.zips,
    "IDX": users_files.idx,
    "arrays, npz": users_files.arrays,
    "recording, WAV": users_files.sounds,
    "boxes, COCO's JSON": users_files.boxes,
    "cache": our_files.kept_result,
    "measurement store": our_files.kept_measurements,
    "unfinished job": our_files.unfinished_job,
    "board's answer": boards.answers,
    "board's outputs": boards.outputs,
    ".tflite": users_files.tflite,
    ".mlpackage": users_files.mlpackage,
}


@contextlib.contextmanager
def prepared(kind: str, folder: Path) -> Iterator[Subject]:
    """Yield the subject of a kind, in a folder of its own."""
    place = folder / "subject"
    place.mkdir()
    yield KINDS[kind](place)
