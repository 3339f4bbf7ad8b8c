"""A .tflite that something else wrote: TensorFlow Lite Micro decides, and what it cannot run is one clear error."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from sekron_edge.artifacts import Artifact, SourceExporter, adopt, get_exporter
from sekron_edge.errors import ExportError
from tests.narrowing import present
from tests.tflite_files import FileOf, linear

pytestmark = pytest.mark.slow


def streaming() -> FileOf:
    """Keeps a sum from one inference to the next; the handle of what it keeps has no shape."""
    file = FileOf()
    graph, before = file.graph(), file.graph()
    handle, x, held, y = graph.tensor(None, "RESOURCE"), *(graph.tensor([1, 4], "FLOAT32") for _ in range(3))
    state = ("VarHandleOptions", {"container": "", "sharedName": "state"})
    graph.operator("CALL_ONCE", [], [], ("CallOnceOptions", {"initSubgraphIndex": 1}))
    graph.operator("VAR_HANDLE", [], [handle], state)
    graph.operator("READ_VARIABLE", [handle], [held])
    graph.operator("ADD", [x, held], [y], ("AddOptions", {}))
    graph.operator("ASSIGN_VARIABLE", [handle, y], [])
    graph.inputs, graph.outputs = [x], [y]
    same = before.tensor(None, "RESOURCE")
    zeros = before.tensor([1, 4], "FLOAT32", data=np.zeros((1, 4), np.float32))
    before.operator("VAR_HANDLE", [], [same], state)
    before.operator("ASSIGN_VARIABLE", [same, zeros], [])
    return file


def window(kind: str = "SignalWindow") -> FileOf:
    """A custom operator, which LiteRT lacks."""
    file = FileOf()
    graph = file.graph()
    x, y = graph.tensor([1, 16], "INT16"), graph.tensor([1, 16], "INT16")
    weights = graph.tensor([16], "INT16", data=np.full(16, 1 << 12, np.int16))
    graph.operator(kind, [x, weights], [y], ("custom", {"shift": 12}))
    graph.inputs, graph.outputs = [x], [y]
    return file


def depthwise() -> FileOf:
    """The bias's scales are said to be those of axis 3, which LiteRT refuses."""
    file = FileOf()
    graph = file.graph()
    x, y = graph.tensor([1, 4, 4, 2], scales=[0.5]), graph.tensor([1, 2, 2, 2], scales=[1.0])
    weights = graph.tensor([1, 3, 3, 2], data=np.ones((1, 3, 3, 2), np.int8), scales=[0.5, 0.5], dimension=3)
    bias = graph.tensor([2], "INT32", data=np.zeros(2, np.int32), scales=[0.25, 0.25], dimension=3)
    options = {"padding": 1, "strideW": 1, "strideH": 1, "depthMultiplier": 1}
    graph.operator("DEPTHWISE_CONV_2D", [x, weights, bias], [y], ("DepthwiseConv2DOptions", options))
    graph.inputs, graph.outputs = [x], [y]
    return file


def branches() -> FileOf:
    """Computes in graphs of which one runs."""
    file = FileOf()
    graph = file.graph()
    chosen, x, y = graph.tensor([1], "BOOL"), graph.tensor([1, 4], "FLOAT32"), graph.tensor([1, 3], "FLOAT32")
    graph.operator("IF", [chosen, x], [y], ("IfOptions", {"thenSubgraphIndex": 1, "elseSubgraphIndex": 2}))
    graph.inputs, graph.outputs = [chosen, x], [y]
    for _ in range(2):
        branch = file.graph()
        x, y = branch.tensor([1, 4], "FLOAT32"), branch.tensor([1, 3], "FLOAT32")
        weights = branch.tensor([3, 4], "FLOAT32", data=np.ones((3, 4), np.float32))
        branch.operator("FULLY_CONNECTED", [x, weights, -1], [y], ("FullyConnectedOptions", {}))
        branch.inputs, branch.outputs = [x], [y]
    return file


def adopted(folder: Path, file: FileOf | bytes, format: str = "tflm") -> Artifact:
    path = folder / "net.tflite"
    path.write_bytes(file if isinstance(file, bytes) else file.content())
    return adopt(path, format=format, folder=folder)


TAKEN = {
    "nameless": (linear, "int8", 12, "FULLY_CONNECTED 0 writes tensor 1 (1x3), 7 bytes"),
    "handles": (streaming, "fp32", 0, "ADD 3 writes tensor 3 (1x4), 48 bytes"),
    "signal": (window, "int8", 0, "SignalWindow 0 writes tensor 1 (1x16), 64 bytes"),
    "scales by channel": (depthwise, "int8", 72, "DEPTHWISE_CONV_2D 0 writes tensor 1 (1x2x2x2), 40 bytes"),
    "branches": (branches, "fp32", None, "IF 0 writes tensor 2 (1x3), 29 bytes"),
}


@pytest.mark.parametrize("kind", TAKEN)
def test_what_the_interpreter_runs_is_taken(kind: str, tmp_path: Path) -> None:
    made, precision, macs, peak = TAKEN[kind]
    artifact = adopted(tmp_path, made())
    assert (artifact.precision, artifact.macs) == (precision, macs)
    assert 0 < present(artifact.arena).least_bytes < 4096
    assert present(artifact.arena).peak.startswith(peak)
    exporter = get_exporter("tflm")
    exporter.load(artifact).run([np.zeros(spec.shape, spec.dtype) for spec in artifact.inputs])
    assert isinstance(exporter, SourceExporter)
    assert all(exporter.sources(artifact).values())


def test_a_state_is_kept_from_one_inference_to_the_next(tmp_path: Path) -> None:
    session = get_exporter("tflm").load(adopted(tmp_path, streaming()))
    ones = np.ones((1, 4), np.float32)
    assert [session.run([ones])[0].max() for _ in range(3)] == [1, 2, 3]


def test_sources_register_the_operators_of_all_graphs(tmp_path: Path) -> None:
    exporter = get_exporter("tflm")
    assert isinstance(exporter, SourceExporter)
    header = exporter.sources(adopted(tmp_path, branches()))["net.tflite.h"]
    assert "resolver.AddFullyConnected() == 0 &&" in header
    assert "resolver.AddIf() == 0" in header
    assert "resolver.AddWindow() == 0" in exporter.sources(adopted(tmp_path, window()))["net.tflite.h"]


def shaped(shape: list[int] | None) -> FileOf:
    file = linear()
    file.graphs[0].tensors[0].shape = shape
    return file


def of_handles() -> FileOf:
    file = streaming()
    file.graphs[0].inputs = [0]
    return file


def without_weights(offset: int) -> FileOf:
    file = linear()
    file.buffers[1].data, file.buffers[1].offset, file.buffers[1].size = None, offset, 12
    return file


def with_short_weights() -> FileOf:
    file = linear()
    file.buffers[1].data = file.buffers[1].data[:5]
    return file


def adding_what_does_not_fit() -> FileOf:
    """The interpreter takes it, and its kernel aborts."""
    file = streaming()
    file.graphs[0].tensors[3].shape = [1, 2]
    return file


def without_outputs() -> FileOf:
    file = linear()
    file.graphs[0].outputs = []
    return file


def reading(number: int) -> FileOf:
    file = linear()
    file.graphs[0].operators[0].inputs = [number, 2, -1]
    return file


REFUSED: dict[str, tuple[Callable[[], FileOf | bytes], str]] = {
    "custom operator": (lambda: window("Fancy"), "lacks: Fancy; use layers without"),
    "commands": (lambda: window("ethos-u"), "compiled by Vela for an Arm Ethos-U.* take it as ethos-u"),
    "batch left open": (lambda: shaped([-1, 4]), r"input 0, tensor 0 \(-1x4\), must have a fixed shape"),
    "handle outside": (of_handles, "input 0, tensor 0, is of the type RESOURCE"),
    "constants beside": (lambda: without_weights(4096), "constants beyond the model itself"),
    "no constants": (lambda: without_weights(0), r"reads tensor 2 \(3x4\), which is no constant"),
    "constants cut short": (with_short_weights, r"tensor 2 \(3x4\) has less than the 12 bytes"),
    "crash": (adding_what_does_not_fit, r"SIGABRT in ADD 3 writes tensor 3 \(1x2\), whatever the arena"),
    "no output": (without_outputs, "gives no output"),
    "no such tensor": (lambda: reading(9), "9 stands for nothing"),
    "input left out": (lambda: reading(-1), r"(?s)does not run.*FULLY_CONNECTED \(number 0\) failed to prepare"),
    "no graph": (FileOf, "has no graph"),
    "cut short": (lambda: linear().content()[:-200], "cannot be read by the schema"),
    "rubbish": (lambda: b"no model at all", "is no .tflite file"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_it_cannot_run_is_one_error_that_says_why(kind: str, tmp_path: Path) -> None:
    made, said = REFUSED[kind]
    with pytest.raises(ExportError, match=said):
        adopted(tmp_path, made())


def mutated(file: FileOf, chosen: random.Random) -> FileOf:
    """Change one number in a graph: a size, a type, or which tensor is read or written."""
    graph = chosen.choice(file.graphs)
    tensor, operator = chosen.choice(graph.tensors), chosen.choice(graph.operators)
    wrong = chosen.choice([-1, 0, 1, 3, 17, 1 << 16, (1 << 31) - 1])
    what = chosen.choice(["shape", "kind", "inputs", "outputs"])
    if what == "shape" and tensor.shape:
        tensor.shape[chosen.randrange(len(tensor.shape))] = wrong
    elif what == "inputs" and operator.inputs:
        operator.inputs[chosen.randrange(len(operator.inputs))] = chosen.randrange(-1, len(graph.tensors))
    elif what == "outputs" and operator.outputs:
        operator.outputs[chosen.randrange(len(operator.outputs))] = chosen.randrange(len(graph.tensors))
    else:
        tensor.type = chosen.randrange(20)
    return file


def damaged(content: bytes, chosen: random.Random) -> bytes:
    """Change two bytes behind the header."""
    changed = bytearray(content)
    for _ in range(2):
        changed[chosen.randrange(8, len(changed))] = chosen.randrange(256)
    return bytes(changed)


@pytest.mark.parametrize("made", [linear, streaming, depthwise, branches])
def test_no_wrong_number_ends_in_anything_but_an_artifact_or_an_error(
    made: Callable[[], FileOf], tmp_path: Path
) -> None:
    for seed in range(2):
        chosen = random.Random(seed)
        for content in (mutated(made(), chosen).content(), damaged(made().content(), chosen)):
            with suppress(ExportError):
                artifact = adopted(tmp_path, content)
                assert present(artifact.arena).least_bytes > 0
                get_exporter("tflm").load(artifact)
