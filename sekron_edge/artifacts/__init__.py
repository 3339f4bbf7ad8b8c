"""The contracts between the core and the export formats, and the registry that joins them.

What an exporter must keep (``sekron_edge.testing.ExporterContract`` checks it):

* ``export`` writes the artifact whole or not at all, and returns its description;
* the artifact computes what the model computes in ``eval`` mode; the model is left untouched;
* shapes are those of the example inputs, fixed on purpose;
* ``load`` runs the artifact on this machine with the runtime that ships, or says why it cannot;
* its SDK is imported inside its functions, never when the module is imported.

What it may add is a protocol each: latency models can be fitted to its runtime (`PrimitiveExporter`,
`TracedPrimitiveExporter`), the sizes of its files can be planned (`SizedExporter`), its runtime travels to devices
(`DeviceExporter`), bundles hold a snippet (`SnippetExporter`) and sources (`SourceExporter`), files of others are taken
up (`AdoptingExporter`), ``doctor`` lists its packages (`SdkExporter`). A program that times artifacts on Android is
`sekron_edge.measurement.AndroidExporter`. An attribute that is None says that a variant has none.

The core knows no format by name: exporters are found through the entry-point group
``sekron_edge.exporters``. This module does not import torch.
"""

from __future__ import annotations

from sekron_edge.artifacts._artifact import (
    MAIN_OUTPUTS,
    Arena,
    Array,
    Artifact,
    NPUEstimate,
    NPUSizes,
    Precision,
    Quantization,
    TensorSpec,
)
from sekron_edge.artifacts._contracts import (
    AdoptingExporter,
    CalibratableExporter,
    DeviceExporter,
    DeviceRuntime,
    Exporter,
    KeepingExporter,
    PreparedSession,
    PrimitiveExporter,
    SdkExporter,
    Session,
    SizedExporter,
    Snippet,
    SnippetExporter,
    SourceExporter,
    TracedPrimitiveExporter,
)
from sekron_edge.artifacts._conversion import Availability, Sdk, converting, reading
from sekron_edge.artifacts._origins import ExporterOrigin, exporter_of, exporter_origin
from sekron_edge.artifacts._registry import (
    ENTRY_POINT_GROUP,
    adopt,
    all_exporters,
    calibratable,
    device_runtime,
    export,
    export_tensors,
    exporter_family,
    exporter_names,
    get_exporter,
    kept_in,
    predict,
    register_exporter,
    require_keeping,
    rounds,
)
from sekron_edge.artifacts._whole_batches import batch_and_total, whole_batches

__all__ = [
    "ENTRY_POINT_GROUP",
    "MAIN_OUTPUTS",
    "AdoptingExporter",
    "Arena",
    "Array",
    "Artifact",
    "Availability",
    "CalibratableExporter",
    "DeviceExporter",
    "DeviceRuntime",
    "Exporter",
    "ExporterOrigin",
    "KeepingExporter",
    "NPUEstimate",
    "NPUSizes",
    "Precision",
    "PreparedSession",
    "PrimitiveExporter",
    "Quantization",
    "Sdk",
    "SdkExporter",
    "Session",
    "SizedExporter",
    "Snippet",
    "SnippetExporter",
    "SourceExporter",
    "TensorSpec",
    "TracedPrimitiveExporter",
    "adopt",
    "all_exporters",
    "batch_and_total",
    "calibratable",
    "converting",
    "device_runtime",
    "export",
    "export_tensors",
    "exporter_family",
    "exporter_names",
    "exporter_of",
    "exporter_origin",
    "get_exporter",
    "kept_in",
    "predict",
    "reading",
    "register_exporter",
    "require_keeping",
    "rounds",
    "whole_batches",
]
