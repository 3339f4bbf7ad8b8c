"""TensorFlow Lite Micro's files keep the contract, fit the arena that they state, and compile as firmware."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from torch import nn

from sekron_edge.artifacts import Artifact, SourceExporter, export, get_exporter, predict
from sekron_edge.errors import ExportError
from sekron_edge.exporters.tflm._memory import require_runs
from sekron_edge.nn import operations, peak_elements, replace_layers
from sekron_edge.structure import tucker2
from sekron_edge.testing import ExporterContract
from tests.narrowing import present

COMPILER = "arm-none-eabi-g++"
CORES = {"Cortex-M4": ["-mcpu=cortex-m4"], "Cortex-M7": ["-mcpu=cortex-m7"]}
USE = """
#include "{header}"
struct Resolver {{ {methods} }};
bool use(Resolver& resolver) {{ return {name}::RegisterOperators(resolver) && {name}::kModel[4] == 'T'; }}
"""


class TestTFLM(ExporterContract):
    format = "tflm"
    float_format = "litert"
    tolerance: ClassVar = {"fp32": 1e-4, "int8": 0.1}


def network() -> nn.Module:
    torch.manual_seed(0)
    dense = nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10),
    )  # fmt: skip
    return replace_layers(dense, {"2": tucker2((24, 16, 3, 3), 12, 8)}).eval()


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    x = torch.randn(64, 3, 24, 24)
    folder = tmp_path_factory.mktemp("tflm")
    return export(network(), (x[:1],), format="tflm", precision="int8", out=folder, calibration=(x,))


@pytest.mark.slow
def test_the_arena_is_the_smallest_that_it_runs_in(artifact: Artifact) -> None:
    arena = present(artifact.arena)
    require_runs(artifact.path, arena.least_bytes)
    with pytest.raises(ExportError, match=r"does not run in|ends TensorFlow Lite Micro"):
        require_runs(artifact.path, arena.least_bytes - 16)
    assert arena.size_bytes >= 1.05 * arena.least_bytes
    # What is planned for is what the runtime places.
    graph = operations(network(), (torch.randn(1, 3, 24, 24),))
    planned = max(
        peak_elements(operation.primitives, held, kept)
        for operation, held, kept in zip(graph.operations, graph.held(), graph.kept_inputs(), strict=True)
    )
    assert arena.activation_bytes == pytest.approx(planned, rel=0.05)
    assert "live" in arena.peak


@pytest.mark.slow
def test_it_is_within_a_step_of_the_reference_kernels(artifact: Artifact) -> None:
    reference = Interpreter(str(artifact.path), experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    reference.allocate_tensors()
    (given,), (taken,) = reference.get_input_details(), reference.get_output_details()
    session = get_exporter("tflm").load(artifact)
    for seed in range(20):
        x = np.random.default_rng(seed).integers(-128, 128, given["shape"], np.int8)
        reference.set_tensor(given["index"], x)
        reference.invoke()
        (found,) = session.run([x])
        steps = np.abs(found.astype(int) - reference.get_tensor(taken["index"]).astype(int))
        assert steps.max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("core", CORES)
def test_its_source_compiles_for_the_core(core: str, artifact: Artifact, tmp_path: Path) -> None:
    if shutil.which(COMPILER) is None:
        pytest.skip(f"{COMPILER} is absent: apt-get install gcc-arm-none-eabi")
    exporter = get_exporter("tflm")
    assert isinstance(exporter, SourceExporter)
    sources = exporter.sources(artifact)
    for name, text in sources.items():
        (tmp_path / name).write_text(text)
    header, source = sources
    methods = re.findall(r"resolver\.(\w+)\(\) == 0", sources[header])
    assert {"AddConv2D", "AddFullyConnected"} <= set(methods)
    declared = " ".join(f"int {method}() {{ return 0; }}" for method in methods)
    (tmp_path / "use.cc").write_text(USE.format(header=header, methods=declared, name=header.removesuffix(".h")))
    flags = [*CORES[core], "-mthumb", "-Os", "-std=c++17", "-Wall", "-Werror", "-c"]
    for file in (source, "use.cc"):
        subprocess.run([COMPILER, *flags, file, "-o", f"{file}.o"], cwd=tmp_path, check=True)
    listed = subprocess.run(
        ["arm-none-eabi-size", f"{source}.o"], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    code, data, bss = map(int, listed.stdout.splitlines()[1].split()[:3])
    assert (data, bss) == (0, 0)  # the model stays in flash
    assert artifact.size_bytes <= code <= artifact.size_bytes + 64


@pytest.mark.slow
def test_an_operator_that_the_runtime_lacks_is_named(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU()).eval()
    with pytest.raises(ExportError, match="operators that TensorFlow Lite Micro lacks: GELU"):
        export(model, (torch.randn(1, 3, 8, 8),), format="tflm", out=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_too_small_an_arena_is_one_clear_error(artifact: Artifact) -> None:
    small = present(artifact.arena).model_copy(update={"least_bytes": 1024})
    with pytest.raises(ExportError, match="cannot be read by TensorFlow Lite Micro"):
        get_exporter("tflm").load(artifact.model_copy(update={"arena": small}))
    x = torch.randn(2, 3, 24, 24)
    (found,) = predict(get_exporter("tflm").load(artifact), artifact, [x.numpy()])
    expected = network()(x).detach().numpy()
    assert np.abs(found - expected).max() < 0.1 * np.abs(expected).max()
