"""The example jobs, end to end: accuracy, MACs, bytes and measured latency of the dense and of the delivered model.

A bundle that `sekron-edge run` has already built is taken as it is; remove it to run the job anew. ``--quick`` runs the
digits job alone. Scores are those of the artifact itself where its runtime is here, else of the PyTorch model.
Fashion-MNIST is read from where Debian's package puts it, the CIFAR images and weights from ``SEKRON_EDGE_DATA``; a
job whose data is absent is left out, and said so.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks._jobs import EXAMPLES, INT8_JOBS
from benchmarks._result import Claim, parser, publish
from sekron_edge.bundle import MANIFEST_NAME, Delivery, Manifest, read_manifest
from sekron_edge.cli import ConsoleProgress
from sekron_edge.errors import ConfigError, DataError
from sekron_edge.pipeline import JobConfig, load_config, run_job

_JOBS = (
    "digits", "fashion_mnist", "fashion_mnist_int8", "cifar_resnet", "cifar_resnet32_int8", "super_resolution",
)  # fmt: skip
# Top-1 of the CIFAR weights as published with the data; the dense score must be that before anything is compared.
_CIFAR_BASELINE = 0.8827


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the jobs and publish what came of them."""
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--out", type=Path, default=Path("dist"), help="folder of the bundles")
    options.add_argument("--jobs", nargs="+", choices=_JOBS, default=list(_JOBS), help="by default all")
    given = options.parse_args(arguments)
    jobs = ["digits"] if given.quick else given.jobs
    rows: list[dict[str, Any]] = []
    claims: list[Claim] = []
    for job in jobs:
        try:
            config = load_config(EXAMPLES / f"{job}.toml")
            manifest = _manifest(config, given.out / config.name)
        except (ConfigError, DataError) as error:
            Console(stderr=True).print(f"{job} is left out: {error}", markup=False)
            continue
        rows += [_row(job, manifest, delivery) for delivery in manifest.deliveries]
        claims += _claims(job, manifest)
    publish(rows, claims, given.json)


def _manifest(config: JobConfig, bundle: Path) -> Manifest:
    if (bundle / MANIFEST_NAME).is_file():
        return read_manifest(bundle)
    return run_job(config, bundle, resume=True, progress=ConsoleProgress()).manifest


def _row(job: str, manifest: Manifest, delivery: Delivery) -> dict[str, Any]:
    new, old = delivery.measured, delivery.dense_measured
    return {
        "job": job,
        "made": manifest.created_at.isoformat(timespec="minutes"),
        "artifact": f"{delivery.artifact.format} {delivery.artifact.precision}",
        "metric": manifest.score.metric,
        "dense score": manifest.score.dense if delivery.dense_score is None else delivery.dense_score,
        "score": manifest.score.delivered if delivery.score is None else delivery.score,
        "fewer MACs": manifest.dense.macs / manifest.delivered.macs,
        "dense bytes": delivery.dense_bytes,
        "bytes": delivery.artifact.size_bytes,
        "dense ms": None if old is None else old.median_ms,
        "ms": None if new is None else new.median_ms,
        "steady": None if old is None or new is None else old.stable and new.stable,
    }


def _claims(job: str, manifest: Manifest) -> list[Claim]:
    main = manifest.deliveries[0]
    assert main.measured is not None
    assert main.dense_measured is not None
    speedup = main.dense_measured.median_ms / main.measured.median_ms
    fewer = manifest.dense.macs / manifest.delivered.macs
    lost = manifest.score.dense - manifest.score.delivered
    if job == "fashion_mnist":
        return [
            Claim(name="Fashion-MNIST: times fewer MACs", value=fewer, relation=">=", limit=4.0),
            Claim(name="Fashion-MNIST: accuracy lost", value=lost, relation="<=", limit=0.005),
            Claim(name="Fashion-MNIST: times faster, LiteRT fp32, one thread", value=speedup, relation=">=", limit=2.0),
        ]
    if job in INT8_JOBS:
        assert main.score is not None
        assert main.dense_score is not None
        most_lost, faster, smaller = INT8_JOBS[job]
        lost, times = main.dense_score - main.score, main.dense_bytes / main.artifact.size_bytes
        return [
            Claim(name=f"{job}, against dense int8: accuracy lost", value=lost, relation="<=", limit=most_lost),
            Claim(name=f"{job}: times faster, LiteRT, one thread", value=speedup, relation=">=", limit=faster),
            Claim(name=f"{job}: times smaller", value=times, relation=">=", limit=smaller),
        ]
    if job == "cifar_resnet":
        below = _CIFAR_BASELINE - manifest.score.delivered
        return [
            Claim(name="ResNet-20: times fewer MACs", value=fewer, relation=">=", limit=2.0),
            Claim(name="ResNet-20: accuracy below the baseline of 88.27 %", value=below, relation="<=", limit=0.025),
            Claim(name="ResNet-20: times faster, LiteRT fp32, one thread", value=speedup, relation=">=", limit=1.0),
        ]
    return [Claim(name=f"{job}: budgets kept", value=float(manifest.kept), relation=">=", limit=1.0)]


if __name__ == "__main__":
    main()
