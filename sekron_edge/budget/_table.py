"""The resources that sekron-edge knows by itself: one record each, and how each is found."""

from __future__ import annotations

from sekron_edge.budget._evidence import Evidence, Finding
from sekron_edge.budget._resource import Resource


def _measured_latency(evidence: Evidence) -> Finding | None:
    before, after = evidence.dense.median_ms, evidence.found.median_ms
    if before is None or after is None:
        return None
    spread = f": {evidence.spread}" if evidence.spread else ""
    return Finding(after, before, f"measured on {evidence.place}, median{spread}")


def _compiled_latency(evidence: Evidence) -> Finding | None:
    before, after = evidence.dense.compiled, evidence.found.compiled
    if before is None or after is None:
        return None
    how = f"estimated by the compiler for {after.accelerator} at {after.clock_mhz:g} MHz, not measured there"
    return Finding(after.latency_ms, before.latency_ms, how)


def _file_size(evidence: Evidence) -> Finding:
    return Finding(evidence.found.file_bytes, evidence.dense.file_bytes, "size of the file")


def _process_memory(evidence: Evidence) -> Finding | None:
    before, after = evidence.dense.process_bytes, evidence.found.process_bytes
    if not before or not after:
        return None
    return Finding(after, before, f"measured on {evidence.place}, of the process")


def _arena(evidence: Evidence) -> Finding | None:
    before, after = evidence.dense.arena_bytes, evidence.found.arena_bytes
    if before is None or after is None:
        return None
    return Finding(after, before, f"arena, tested with {evidence.tested_with}")


def _compiled_memory(evidence: Evidence) -> Finding | None:
    before, after = evidence.dense.compiled, evidence.found.compiled
    if before is None or after is None:
        return None
    how = f"SRAM, estimated by the compiler for {after.accelerator}; not measured"
    return Finding(after.sram_bytes, before.sram_bytes, how)


def _lost_metric(evidence: Evidence) -> Finding | None:
    metric = evidence.metric
    if metric is None:
        return None
    gained = metric.found - metric.dense
    return Finding(-gained if evidence.higher_is_better else gained, 0.0, metric.how)


# Headroom, because artifacts are measured again at the end, on a noisy machine.
LATENCY = Resource(
    name="latency_ms", unit="ms", meaning="Median latency on the target's runtime",
    predict="latency_ms", predicted="estimated for {device}, not measured there",
    evidence=(_measured_latency, _compiled_latency),
    headroom=0.97, corrected=True, whole=False, title="predicted ms",
)  # fmt: skip
# Headroom, because other weights have other scales, more or fewer of them equal.
FILE_SIZE = Resource(
    name="artifact_bytes", unit="bytes", meaning="Size of the artifact",
    predict="artifact_bytes", evidence=(_file_size,),
    headroom=0.995, corrected=True, device_fact="flash", title="bytes",
)  # fmt: skip
PEAK_MEMORY = Resource(
    name="peak_memory_bytes", unit="bytes", meaning="Peak memory attributable to the model",
    predict="peak_bytes", predicted="predicted: what activations take at most; not measured",
    evidence=(_process_memory, _arena, _compiled_memory),
    adds_up="max", beside=", with what lives meanwhile", device_fact="usable_ram", title="activations",
)  # fmt: skip
MACS = Resource(
    name="macs", unit="", meaning="Multiply-accumulates of an inference",
    predict="macs", predicted="counted", title="MACs",
)  # fmt: skip
# The file's bytes are nearly those of its parameters: saving only parameters is no reason to keep a candidate.
PARAMETERS = Resource(
    name="parameters", unit="", meaning="Parameters of the PyTorch model",
    predict="parameters", predicted="counted", compared=False,
)  # fmt: skip
ACCURACY_DROP = Resource(
    name="accuracy_drop", unit="of the metric", meaning="Loss of the task's metric on held-out data, after fine-tuning",
    evidence=(_lost_metric,), whole=False,
)  # fmt: skip

BUILT_IN = (LATENCY, FILE_SIZE, PEAK_MEMORY, MACS, PARAMETERS, ACCURACY_DROP)
