"""The user's own baseline: the dense model in int8, as any exporter gives it, against what the jobs deliver in fp32.

Needs the bundles of the example jobs in ``dist`` (`sekron-edge run`, or `benchmarks.examples`). LiteRT, one thread,
post-training quantization of weights and activations on calibration data; all three timed in turn. ``--quick`` takes
digits alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from benchmarks._result import Claim, parser, publish
from sekron_edge.artifacts import Artifact, export
from sekron_edge.bundle import MANIFEST_NAME, read_manifest
from sekron_edge.cli import ConsoleNarrator
from sekron_edge.data import collate
from sekron_edge.devices import LocalDevice
from sekron_edge.pipeline import JobConfig, load_config, load_task, trained_model
from sekron_edge.task import Task

_EXAMPLES = Path(__file__).parents[1] / "examples"
_CALIBRATION = 128
_JUDGED = 2000


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
            ConsoleNarrator().say(f"{job} is left out: there is no bundle at {bundle}")
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
    model = trained_model(config, task, ConsoleNarrator())
    delivery = next(d for d in read_manifest(bundle).deliveries if d.artifact.format == "litert")
    ours = delivery.artifact.model_copy(update={"path": bundle / delivery.artifact.path})
    with TemporaryDirectory() as folder:
        inputs, _ = collate([task.calibration[index] for index in range(_CALIBRATION)])
        dense = export(model, (inputs[:1],), format="litert", out=folder, name="dense")
        int8 = _quantized(dense, inputs.numpy(), Path(folder) / "dense_int8.tflite")
        artifacts = {"dense fp32": dense, "dense int8": int8, "delivered fp32": ours}
        timings = LocalDevice().measure_together(list(artifacts.values()), runs=100)
        return [
            {
                "job": job,
                "artifact": name,
                "score": _score(artifact, task),
                "bytes": artifact.size_bytes,
                "ms": timing.median_ms,
                "steady": timing.stable,
            }
            for (name, artifact), timing in zip(artifacts.items(), timings, strict=True)
        ]


def _score(artifact: Artifact, task: Task) -> float:
    """Return the task's metric on held-out samples, spread over all of them."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(artifact.path), num_threads=1)
    interpreter.allocate_tensors()
    source, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    (scale, zero), (out_scale, out_zero) = (detail["quantization"] for detail in (source, result))
    metric = task.metric()
    total = len(task.heldout)  # type: ignore[arg-type]
    for index in range(0, total, max(1, total // _JUDGED)):
        sample, target = task.heldout[index]
        value = np.moveaxis(sample[None].numpy(), 1, -1)
        if source["dtype"] == np.int8:
            value = np.clip(np.round(value / scale + zero), -128, 127)
        interpreter.set_tensor(source["index"], np.ascontiguousarray(value.astype(source["dtype"])))
        interpreter.invoke()
        output = interpreter.get_tensor(result["index"]).astype(np.float32)
        if result["dtype"] == np.int8:
            output = (output - out_zero) * out_scale
        metric.update(torch.from_numpy(output), target[None])
    return float(metric.compute())


def _quantized(dense: Artifact, inputs: np.ndarray, path: Path) -> Artifact:
    """Quantize weights and activations to int8."""
    from ai_edge_quantizer import quantizer, recipe

    spec = dense.inputs[0]
    samples = [{"args_0": spec.from_torch(value[None])} for value in inputs]
    work = quantizer.Quantizer(str(dense.path), recipe.static_wi8_ai8())
    work.quantize(work.calibrate({"serving_default": samples})).export_model(str(path))
    return Artifact.describe(
        path,
        format="litert",
        precision="int8",
        inputs=[one.model_copy(update={"dtype": "int8"}) for one in dense.inputs],
        outputs=[one.model_copy(update={"dtype": "int8"}) for one in dense.outputs],
        versions={},
    )


if __name__ == "__main__":
    main()
