"""Files without what only their converter needed compute the same."""

from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch import nn

from sekron_edge.artifacts import Precision, export, get_exporter
from sekron_edge.exporters.tflite import _convert
from sekron_edge.exporters.tflite._compact import compact, layer_name


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4),
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_compact_file_computes_the_same(
    precision: Precision, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ai_edge_litert import schema_py_generated as schema

    noting = Mock(side_effect=compact)
    monkeypatch.setattr(_convert, "compact", noting)
    x, calibration = torch.randn(1, 3, 8, 8), (torch.randn(16, 3, 8, 8),)
    artifact = export(network(), (x,), format="litert", precision=precision, out=tmp_path, calibration=calibration)
    before, after = noting.call_args.args[0], artifact.path.read_bytes()
    assert len(after) < len(before)
    assert len(compact(after)) == len(after)
    as_converted = tmp_path / "as_converted.tflite"
    as_converted.write_bytes(before)
    values = artifact.inputs[0].from_torch(x.numpy())
    load = get_exporter("litert").load
    (expected,) = load(artifact.model_copy(update={"path": as_converted})).run([values])
    (found,) = load(artifact).run([values])
    assert np.array_equal(found, expected)
    model = schema.Model.GetRootAs(after, 0)
    start = np.frombuffer(after, np.uint8).ctypes.data
    buffers = [model.Buffers(index) for index in range(model.BuffersLength())]
    places = [buffer.DataAsNumpy().ctypes.data - start for buffer in buffers if buffer.DataLength()]
    assert places
    assert all(place % 16 == 0 for place in places)
    graph = model.Subgraphs(0)
    names = [graph.Tensors(index).Name().decode() for index in range(graph.TensorsLength())]
    assert any(name.startswith("0.2") for name in names)
    assert max(map(len, names)) < 40


def test_names_are_those_of_the_layers() -> None:
    first = "a.Wrapper/net.Net_wrapped/torch.nn.modules.container.Sequential_layer_1/net.Block_0"
    assert layer_name(f"{first};;{first}/torch.nn.modules.conv.Conv2d_conv1;2") == "layer_1.0.conv1:2"
    assert layer_name("a.Wrapper/net.Net_wrapped;") == ""
    assert layer_name("anything else") == "anything else"
