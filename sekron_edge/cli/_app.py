"""The commands, and how errors end them."""

from __future__ import annotations

import json
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version

import typer
from rich.console import Console

from sekron_edge.cli import _artifacts, _jobs, _measurements, _profiles
from sekron_edge.cli._console import print_table
from sekron_edge.cli._jobs import AsJson
from sekron_edge.errors import SekronEdgeError

app = typer.Typer(
    name="sekron-edge",
    help="A trained PyTorch CNN and a device go in; a verified deployment bundle that keeps its budgets comes out.",
    epilog="Exit codes: 0 done, 2 usage or bad input, 3 budget infeasible, 4 verification failed, 5 device failed.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command()(_jobs.run)
app.command()(_jobs.plan)
app.command()(_artifacts.export)
app.command()(_artifacts.verify)
app.command()(_artifacts.sign)
app.command()(_measurements.bench)
app.add_typer(_measurements.app, name="measurements")
app.add_typer(_profiles.app, name="profiles")

_PACKAGES = ("sekron-edge", "torch", "numpy", "lightning")  # beside those of the exporters
_NO_MEMORY = "can't allocate memory"  # PyTorch has no error of its own for that
_INTERRUPTED, _TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM


def main() -> None:
    """Run the command line; end with the error's own exit code."""
    try:
        with _terminable():
            app()
    except SekronEdgeError as error:
        _end(str(error), error.exit_code)
    except OSError as error:
        _end(f"{error}. Files appear whole or not at all, so nothing is half-written", SekronEdgeError.exit_code)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and _NO_MEMORY not in str(error):
            raise
        _end(f"there is not enough memory: {error or 'an array'}. Close other programs, or take fewer or smaller "
             "samples; what was finished is kept", SekronEdgeError.exit_code)  # fmt: skip
    except (KeyboardInterrupt, SystemExit) as ended:
        # Typer turns an interruption into an exit without a word.
        code = ended.code if isinstance(ended, SystemExit) else _INTERRUPTED
        if code not in (_INTERRUPTED, _TERMINATED):
            raise
        _end("stopped; `run` and `bench` go on with --resume", int(code))


@contextmanager
def _terminable() -> Iterator[None]:
    """Leave in order when a scheduler or a container says so; Lightning would end with exit code 0."""

    def leave(*_: object) -> None:
        sys.exit(_TERMINATED)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(text: str, code: int) -> None:
    Console(stderr=True).print(f"error: {text}", style="red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(code)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _client_version(command: Sequence[str]) -> str | None:
    program, *arguments = command
    path = shutil.which(program)
    if path is None:
        return None
    ended = subprocess.run([path, *arguments], capture_output=True, text=True, check=False)
    return (ended.stdout or ended.stderr).partition("\n")[0]


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Say what can run here: formats, packages and their versions, and the clients for remote devices."""
    from sekron_edge.artifacts import SdkExporter, exporter_names, get_exporter
    from sekron_edge.measurement import known_transports, user_devices

    formats, packages = {}, {package: _version(package) for package in _PACKAGES}
    for exporter in map(get_exporter, exporter_names()):
        available = exporter.availability()
        formats[exporter.name] = {"ok": available.ok, "reason": available.reason}
        if isinstance(exporter, SdkExporter):
            packages |= {package: _version(package) for package in exporter.sdk.packages}
    clients = {one.client[0]: _client_version(one.client) for one in known_transports() if one.client}
    devices = sorted(user_devices())
    if as_json:
        report = {"python": platform.python_version(), "system": platform.platform(), "packages": packages}
        typer.echo(json.dumps({**report, "formats": formats, "clients": clients, "devices": devices}, indent=2))
        return
    print_table(["package", "version"], [[name, known or "not installed"] for name, known in packages.items()])
    rows = [[name, "yes" if f["ok"] else str(f["reason"])] for name, f in formats.items()]
    print_table(["format", "exports here"], rows)
    print_table(["devices over", "client"], [[name, known or "not installed"] for name, known in clients.items()])
    typer.echo(f"named in devices.toml: {', '.join(devices) or 'none'}")
