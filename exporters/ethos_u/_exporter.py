"""Arm Ethos-U: int8 ``.tflite`` compiled by Vela, with what Vela estimates of it.

The compiled file runs on the accelerator alone. What is run and verified here is the file that Vela was given.
"""

from __future__ import annotations

import csv
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NoReturn

from sekron_edge import contained, files
from sekron_edge.artifacts import Artifact, Availability, NPUEstimate, Precision, Sdk
from sekron_edge.errors import ConfigError, ExportError, NotRunnableError

from ..tflite._adopt import inputs_and_outputs
from ..tflite._convert import FILE_COSTS
from ..tflite._graph import TFLiteFile, parsed, read_file
from ..tflm._exporter import SDK as TFLM
from ..tflm._exporter import TFLMExporter
from ._commands import is_compiled, left_to_the_cpu, sizes, variant

if TYPE_CHECKING:
    import torch

_PACKAGE = "ethos-u-vela"
SDK = Sdk({**TFLM.packages, _PACKAGE: "ethosu"}, install="pip install 'sekron-edge[ethos-u]'")
_CONFIGURATIONS = "Arm/vela.ini"
# Of each family, the configuration with weights in flash, as microcontrollers have them. U65's has DRAM in its place.
_SYSTEMS = {
    "u55": "Ethos_U55_High_End_Embedded",
    "u65": "Ethos_U65_High_End",
    "u85": "Ethos_U85_SYS_Flash_High",
}
_MEMORY_MODE = "Shared_Sram"
_KIB = 1024
_LONGEST_S = 600.0
_SAID = 600


class EthosUExporter:
    """Exports as for TensorFlow Lite Micro, and has Vela compile that file."""

    variants: ClassVar[tuple[str, ...]] = (
        *(f"u55-{macs}" for macs in (32, 64, 128, 256)),
        *(f"u65-{macs}" for macs in (256, 512)),
        *(f"u85-{macs}" for macs in (128, 256, 512, 1024, 2048)),
    )
    precisions: tuple[Precision, ...] = ("int8",)
    sdk = SDK
    file_costs: ClassVar = {"int8": FILE_COSTS["int8"]}

    def __init__(self, variant: str = "") -> None:
        self.name = f"ethos-u:{variant}" if variant else "ethos-u"
        self._variant = variant or "u55-128"
        self.suffix = f".{self._variant}.tflite"
        self._before = TFLMExporter()

    def availability(self) -> Availability:
        """Say whether the converter, the interpreter and Vela are installed."""
        return self.sdk.availability()

    def export(
        self,
        model: torch.nn.Module,
        example_inputs: tuple[torch.Tensor, ...],
        *,
        precision: Precision,
        path: Path,
        calibration: Sequence[torch.Tensor] | None = None,
    ) -> Artifact:
        """Write ``path``, and beside it the file that it was compiled from.

        Raises:
            ConfigError: If calibration data is lacking.
            ExportError: If the conversion or Vela fails, or the accelerator takes no operator at all.
            MissingDependencyError: If the converter, the interpreter or Vela is absent.
        """
        self.sdk.require(_PACKAGE)
        before_path = path.with_name(f"{path.name.removesuffix(self.suffix)}.before-{self._variant}.tflite")
        before = self._before.export(
            model, example_inputs, precision=precision, path=before_path, calibration=calibration
        )
        try:
            return self._compiled(before, path)
        except ExportError:
            before_path.unlink()
            raise

    def adopt(self, file: Path, folder: Path) -> Artifact:
        """Take up an int8 .tflite that something else wrote, and have Vela compile it into ``folder``.

        Of a file that Vela has compiled already the sizes are read.

        Raises:
            ExportError: If TensorFlow Lite Micro or Vela does not take it, or it is compiled for another accelerator.
            MissingDependencyError: If the interpreter or Vela is absent.
        """
        found = read_file(file)
        if is_compiled(found):
            return self._compiled_elsewhere(found, file)
        self.sdk.require(_PACKAGE)
        return self._compiled(self._before.adopt(file, folder), folder / f"{file.stem}{self.suffix}")

    def _compiled_elsewhere(self, found: TFLiteFile, path: Path) -> Artifact:
        accelerator = variant(found, path)
        if self.name not in ("ethos-u", own := f"ethos-u:{accelerator}"):
            raise ExportError(f"{path} was compiled by Vela for another accelerator: take it as {own}")
        inputs, outputs = inputs_and_outputs(found, path)
        return Artifact.describe(
            path,
            format=own,
            precision="int8",
            inputs=inputs,
            outputs=outputs,
            versions={},
            npu_sizes=sizes(found, path),
        )

    def _compiled(self, before: Artifact, path: Path) -> Artifact:
        with files.whole_file(path) as temporary:
            npu = compiled(before.path, temporary, self._variant)
        return Artifact.describe(
            path,
            format=self.name,
            precision=before.precision,
            inputs=before.inputs,
            outputs=before.outputs,
            versions=self.sdk.versions(),
            delegated=1 - len(npu.on_cpu) / len(read_file(before.path).main.operators),
            macs=before.macs,
            npu=npu,
            compiled_from=before,
        )

    def import_runtime(self) -> NoReturn:
        """Refuse: there is no runtime here.

        Raises:
            NotRunnableError: Always.
        """
        raise NotRunnableError(
            f"{self.name} runs on an Arm Ethos-U alone: nothing of it can be measured on this machine"
        )

    def load(self, artifact: Artifact, *, threads: int = 1) -> NoReturn:  # noqa: ARG002 - nothing runs
        """Refuse: the file holds commands for an accelerator.

        Raises:
            NotRunnableError: Always; names the file that can be run instead.
        """
        before = "" if artifact.compiled_from is None else f"; run what it was compiled from, {artifact.runnable.path}"
        raise NotRunnableError(f"{artifact.path} holds commands for an Arm Ethos-U, which this machine lacks{before}")


def compiled(before: Path, path: Path, variant: str) -> NPUEstimate:
    """Have Vela compile the file ``before`` to ``path``.

    Raises:
        ConfigError: If Vela knows no such accelerator.
        ExportError: If it fails, or leaves every operator to the CPU.
        MissingDependencyError: If it is absent.
    """
    SDK.require(_PACKAGE)
    if variant not in EthosUExporter.variants:
        raise ConfigError(f"no Ethos-U {variant!r}; known: {', '.join(EthosUExporter.variants)}")
    system = _SYSTEMS[variant.partition("-")[0]]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [
            *contained.launcher(before.stat().st_size),
            sys.executable, "-W", "ignore", "-m", "ethosu.vela", str(before.resolve()), "--output-dir", str(folder),
            "--accelerator-config", f"ethos-{variant}", "--config", _CONFIGURATIONS, "--system-config", system,
            "--memory-mode", _MEMORY_MODE,
        ]  # fmt: skip
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_LONGEST_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise ExportError(f"ethos-u: Vela took longer than {_LONGEST_S:g} s for {before.name}") from error
        written, summaries = list(folder.glob("*_vela.tflite")), list(folder.glob("*_summary_*.csv"))
        if done.returncode or not written or not summaries:
            raise ExportError(f"ethos-u: Vela could not compile {before.name}: {_said(done.stdout + done.stderr)}")
        content = written[0].read_bytes()
        with summaries[0].open(newline="") as lines:
            summary = next(csv.DictReader(lines))
    after = parsed(content, written[0])
    if not is_compiled(after):
        kinds = sorted({operator.kind for operator in after.operators()})
        raise ExportError(
            f"ethos-u: Vela leaves every operator of {before.name} to the CPU: {', '.join(kinds)}; "
            "choose tflm, or build the model of convolutions and linear layers"
        )
    path.write_bytes(content)
    return NPUEstimate(
        accelerator=f"Ethos-{variant.upper()}",
        system=f"Vela's {system}, {_MEMORY_MODE}",
        clock_mhz=float(summary["core_clock"]) / 1e6,
        cycles=int(float(summary["cycles_total"])),
        sram_bytes=_bytes(summary["sram_memory_used"]),
        storage_bytes=sum(
            _bytes(summary[f"{where}_memory_used"]) for where in ("dram", "on_chip_flash", "off_chip_flash")
        ),
        on_cpu=left_to_the_cpu(after.main),
    )


def _said(output: str) -> str:
    """Return the end of what Vela said; of a traceback the error alone."""
    if "Traceback (most recent call last)" in output:
        return f"it fails with {output.strip().splitlines()[-1]}"
    return output[-_SAID:].strip()


def _bytes(kibibytes: str) -> int:
    return round(float(kibibytes) * _KIB)
