"""Faults of bundles: altered, signed, half packed."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import subprocess
import sys
from functools import cache as cache_of_functions
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import nn

import sekron_edge as se
from sekron_edge import files
from sekron_edge.artifacts import Artifact
from sekron_edge.bundle import (
    Delivery,
    Golden,
    Manifest,
    pack,
    read_manifest,
    rebuild,
    verify_bundle,
)
from sekron_edge.errors import BundleError
from tests.campaign.faults import bytes_altered, json_altered
from tests.campaign.subjects import Accepting, Subject
from tests.cost_models import MacsAreTime
from tests.small_bundle import INPUT, OUTPUT, hashed_again, manifest_of, network, sealed


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
    artifact = Artifact.describe(
        work / "model_fp32.tflite", format="litert", precision="fp32", inputs=[INPUT], outputs=[OUTPUT], versions={}
    )
    delivery = Delivery(artifact=artifact, check=None, measured=None, dense_bytes=9, dense_measured=None, snippet="")
    golden = Golden((x.numpy(),), (model(x).detach().numpy(),))
    pack(manifest_of(plan, [delivery]), plan, golden, model.state_dict(), out, sign=sign)
    files.remove_folder(work)
    return out


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
            hashed_again(bundle, victim.relative_to(bundle).as_posix())

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
        after=lambda _: sealed(bundle),
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
