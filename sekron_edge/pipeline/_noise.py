"""Rounding noise that a file would be refused for: known from the simulation, and acted on before the file is made."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from sekron_edge.artifacts import get_exporter, kept_in, rounds
from sekron_edge.pipeline._job import Job
from sekron_edge.pipeline._progress import Progress
from sekron_edge.quantization import QuantizationReport, loudest_floats, report_quantization, verifiable_snr_db
from sekron_edge.verification import TOLERANCES

# A file is a little noisier than its simulation, and noisier on held-out data than on calibration data.
LEAST_SNR_DB = TOLERANCES["int8"].snr_db + 1.0


def quiet_enough(model: nn.Module, job: Job, report: QuantizationReport, progress: Progress) -> QuantizationReport:
    """Return the report of a finished model, with the layers in float that its files need to be verified.

    Args:
        model: The finished model.
        job: Where one of its formats cannot keep layers in float, nothing is changed, and verification decides.
        report: With the layers that the job keeps in float by itself.
        progress: Is told which layers, and why.
    """
    delivered = report.keep_float if report.kept else ()
    found = verifiable_snr_db(model, job.calibration_inputs, delivered)
    if found >= LEAST_SNR_DB:
        return report
    said = f"int8 leaves a signal-to-noise ratio of {found:.1f} dB, where files need {LEAST_SNR_DB:g}"
    unable = _unable(job)
    if unable:
        progress.say(f"{said}, and {', '.join(unable)} keeps no layers in float; train longer against rounding")
        return report
    kept = loudest_floats(model, job.calibration_inputs, LEAST_SNR_DB, delivered)
    progress.say(f"{said}: kept in float: {', '.join(kept)}")
    errors = {layer.name: layer.float_error for layer in report.layers if layer.float_error is not None}
    return report_quantization(
        model, job.calibration_inputs, float_errors=errors, trained=report.trained, keep_float=kept
    )


def _unable(job: Job) -> Sequence[str]:
    """Return the formats of a job that round all layers or none."""
    target = job.target
    rounding = [precision for precision in target.precisions if rounds(precision)]
    return [
        name
        for name in target.formats
        for precision in rounding
        if precision in get_exporter(name).precisions and precision not in kept_in(name)
    ]
