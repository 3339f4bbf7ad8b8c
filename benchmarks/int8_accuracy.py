"""int8 against floats: every format's int8 artifact, and the float artifact of the same model, on held-out data.

The models are those that the example jobs deliver, and their dense originals; bundles are taken from ``--bundles``, or
made there. Formats without floats are held against LiteRT's. Slow interpreters and evaluators run ``--samples``
held-out samples, and all of them where those would say that too much is lost: of 500, a few are half a point. The
others run all. ``--quick`` takes the digits alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from torch import nn

from benchmarks._jobs import finished
from benchmarks._result import Claim, parser, publish
from sekron_edge.artifacts import Precision, export
from sekron_edge.errors import ConfigError, DataError
from sekron_edge.pipeline import calibration_inputs
from sekron_edge.task import Task
from sekron_edge.verification import score_artifact

_JOBS = ("digits", "fashion_mnist_int8", "cifar_resnet32_int8", "mcu_image")
# The format of int8, that of floats, and whether all held-out samples are affordable.
_FORMATS = (
    ("litert", "litert", True),
    ("executorch", "executorch", True),
    ("coreml", "coreml", False),
    ("tflm", "litert", False),
)
_MOST = 0.005


def main(arguments: Sequence[str] | None = None) -> None:
    """Export, score, compare."""
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--bundles", type=Path, default=Path("dist"), help="folder of the bundles")
    options.add_argument("--jobs", nargs="+", choices=_JOBS, default=list(_JOBS))
    options.add_argument("--samples", type=int, default=500, help="held-out samples for slow evaluators")
    given = options.parse_args(arguments)
    rows: list[dict[str, Any]] = []
    for job in ["digits"] if given.quick else given.jobs:
        try:
            done = finished(job, given.bundles)
        except (ConfigError, DataError) as error:
            Console(stderr=True).print(f"{job} is left out: {error}", markup=False)
            continue
        for which, model in (("dense", done.dense), ("delivered", done.small)):
            rows += _rows(job, which, model, done.task, given.samples)
    publish(rows, [_claim(row) for row in rows], given.json)


def _rows(job: str, which: str, model: nn.Module, task: Task, few: int) -> list[dict[str, Any]]:
    inputs = calibration_inputs(task)
    rows = []
    for name, float_name, affordable in _FORMATS:

        def scored(format: str, precision: Precision, samples: int) -> float:
            with TemporaryDirectory() as folder:
                artifact = export(
                    model, (inputs[:1],), format=format, precision=precision, out=folder, calibration=(inputs,)
                )
                return score_artifact(artifact, task, samples=samples)

        every: int = len(task.heldout)  # type: ignore[arg-type]
        row: dict[str, Any] = {}
        for samples in dict.fromkeys([every] if affordable else [min(few, every), every]):
            in_float, in_int8 = scored(float_name, "fp32", samples), scored(name, "int8", samples)
            row = {"job": job, "model": which, "format": name, "samples": samples, "float": in_float, "int8": in_int8}
            if in_float - in_int8 <= _MOST:
                break
        rows.append(row)
    return rows


def _claim(row: dict[str, Any]) -> Claim:
    name = f"{row['job']}, {row['model']}, {row['format']}: accuracy that int8 loses"
    return Claim(name=name, value=row["float"] - row["int8"], relation="<=", limit=_MOST)


if __name__ == "__main__":
    main()
