"""The user's own baseline: the dense model in int8, as any exporter gives it, against what the jobs deliver in fp32.

Needs the bundles of the example jobs in ``dist`` (`sekron-edge run`, or `benchmarks.examples`). LiteRT, one thread,
post-training quantization of weights and activations on calibration data; all three timed in turn. ``--quick`` takes
digits alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks._result import Claim, parser, publish
from sekron_edge.artifacts import export
from sekron_edge.bundle import MANIFEST_NAME, read_manifest
from sekron_edge.cli import ConsoleProgress
from sekron_edge.data import collate
from sekron_edge.measurement import Conditions, LocalDevice
from sekron_edge.pipeline import JobConfig, load_config, load_task, trained_model
from sekron_edge.verification import score_artifact

_EXAMPLES = Path(__file__).parents[1] / "examples"
_CALIBRATION = 128


def main(arguments: Sequence[str] | None = None) -> None:
    """Quantize, measure, compare."""
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--bundles", type=Path, default=Path("dist"), help="folder of the bundles")
    given = options.parse_args(arguments)
    rows: list[dict[str, Any]] = []
    claims: list[Claim] = []
    for job in ["digits"] if given.quick else ["digits", "fashion_mnist", "cifar_resnet"]:
        config = load_config(_EXAMPLES / f"{job}.toml")
        bundle = given.bundles / config.name
        if not (bundle / MANIFEST_NAME).is_file():
            ConsoleProgress().say(f"{job} is left out: there is no bundle at {bundle}")
            continue
        found = _compare(job, config, bundle)
        rows += found
        int8, ours = found[1], found[2]
        name = f"{job}: delivered fp32 against dense int8"
        claims += [
            Claim(name=f"{name}, times faster", value=int8["ms"] / ours["ms"], relation=">=", limit=1.0),
            Claim(name=f"{name}, times smaller", value=int8["bytes"] / ours["bytes"], relation=">=", limit=1.0),
        ]
    publish(rows, claims, given.json)


def _compare(job: str, config: JobConfig, bundle: Path) -> list[dict[str, Any]]:
    task = load_task(config)
    model = trained_model(config, task, ConsoleProgress())
    delivery = next(d for d in read_manifest(bundle).deliveries if d.artifact.format == "litert")
    ours = delivery.artifact.model_copy(update={"path": bundle / delivery.artifact.path})
    with TemporaryDirectory() as folder:
        inputs, _ = collate([task.calibration[index] for index in range(_CALIBRATION)])
        write = partial(export, model, (inputs[:1],), format="litert", out=folder, name="dense")
        dense, int8 = write(precision="fp32"), write(precision="int8", calibration=(inputs,))
        artifacts = {"dense fp32": dense, "dense int8": int8, "delivered fp32": ours}
        timings = LocalDevice().measure_together(list(artifacts.values()), Conditions(runs=100))
        return [
            {
                "job": job,
                "artifact": name,
                "score": score_artifact(artifact, task),
                "bytes": artifact.size_bytes,
                "ms": timing.median_ms,
                "steady": timing.stable,
            }
            for (name, artifact), timing in zip(artifacts.items(), timings, strict=True)
        ]


if __name__ == "__main__":
    main()
