"""A .tflite whose structure is damaged, or made to take hours: it is read, or refused with its name."""

import os
import random
import resource
import signal
import struct
import traceback
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from sekron_edge.errors import ExportError, SekronEdgeError
from sekron_edge.exporters.tflite._adopt import inputs_and_outputs
from sekron_edge.exporters.tflite._floats import kept_in_floats
from sekron_edge.exporters.tflite._graph import read_file
from sekron_edge.exporters.tflite._macs import macs, precision
from tests.tflite_files import FileOf

MUTATIONS, TOGETHER = 2000, 50
MOST_BYTES, MOST_SECONDS = 512 << 20, 60


def whole() -> bytes:
    """A convolution, a reshape and a matrix product, with every kind of vector, and little else than structure."""
    file = FileOf()
    graph, other = file.graph(), file.graph()
    x, held, flat, y = (
        graph.tensor(shape, scales=[0.5], name="x" * 9) for shape in ([1, 4, 4, 2], [1, 4, 4, 2], [1, 32], [1, 3])
    )
    kernel = graph.tensor([2, 3, 3, 2], data=np.ones((2, 3, 3, 2), np.int8), scales=[0.5, 0.25], name="kernel")
    shape = graph.tensor([2], "INT32", data=np.array([1, 32], np.int32), name="shape")
    weights = graph.tensor([3, 32], data=np.ones((3, 32), np.int8), scales=[0.5])
    graph.operator("CONV_2D", [x, kernel, -1], [held], ("Conv2DOptions", {"strideW": 1, "strideH": 1}))
    graph.operator("RESHAPE", [held, shape], [flat], ("ReshapeOptions", {"newShape": [1, 32]}))
    graph.operator("FULLY_CONNECTED", [flat, weights, -1], [y], ("FullyConnectedOptions", {}))
    graph.operator("Mine", [y], [y], ("custom", {"a": 1}))
    graph.operator("CALL_ONCE", [], [], ("CallOnceOptions", {"initSubgraphIndex": 1}))
    graph.inputs, graph.outputs = [x], [y]
    other.inputs = other.outputs = [other.tensor([1], "FLOAT32")]
    return file.content()


def mutated(content: bytes, seed: int) -> bytes:
    """Return a file with bits turned, offsets and lengths replaced, or an end or a piece that is missing."""
    drawn, changed = random.Random(seed), bytearray(content)
    for _ in range(drawn.choice([1, 1, 1, 3])):
        at = drawn.randrange(8, len(changed) - 4)
        word = at & ~3
        kind = drawn.randrange(5)
        if kind == 0:
            changed[at] ^= 1 << drawn.randrange(8)
        elif kind == 1:
            struct.pack_into("<H", changed, at & ~1, drawn.choice([0, 4, 0xFFFF, drawn.randrange(1 << 16)]))
        elif kind < 4:
            numbers = [0, 0xFFFF_FFFF, 0x7FFF_FFFF, 0x8000_0000, 1 << 24, len(content) - word, drawn.randrange(1 << 32)]
            struct.pack_into("<I", changed, word, drawn.choice([*numbers, drawn.randrange(len(content))]))
        else:
            del changed[at : at + drawn.choice([1, 7, len(changed)])]
        if len(changed) < 64:
            break
    return bytes(changed)


def use(path: Path) -> None:
    file = read_file(path)
    inputs_and_outputs(file, path)
    macs(file)
    precision(file)
    kept_in_floats(file.graphs)
    for graph in file.graphs:
        graph.unwritten()
        graph.cut_short()
        for place in range(len(graph.operators)):
            graph.text(place)


def in_child(path: Path, seeds: range, content: bytes) -> int:
    """Read some mutated files in a process with little memory and time; return its exit status."""
    process = os.fork()
    if process:
        return os.waitpid(process, 0)[1]
    try:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + MOST_BYTES, used + MOST_BYTES))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(MOST_SECONDS)
        for seed in seeds:
            path.write_bytes(mutated(content, seed))
            try:
                use(path)
            except SekronEdgeError as error:
                if str(path) not in str(error):
                    raise
        os._exit(0)
    except BaseException:  # noqa: BLE001  # whatever it is, it must end this process and not go on as the test's
        traceback.print_exc()
        os._exit(1)


def test_damaged_files_are_read_or_refused_in_little_time_and_memory(tmp_path: Path) -> None:
    path = tmp_path / "net.tflite"
    path.write_bytes(whole())
    use(path)
    for first in range(0, MUTATIONS, TOGETHER):
        seeds = range(first, first + TOGETHER)
        assert in_child(path, seeds, whole()) == 0, seeds


def repeated(count: int, name: bytes) -> bytes:
    """A file whose only graph stands in it ``count`` times, and in that its only tensor: by their offsets alone."""
    builder: Any = flatbuffers.Builder(1024)
    called = builder.CreateString(name)
    schema.TensorStart(builder)
    schema.TensorAddName(builder, called)
    tensor = schema.TensorEnd(builder)
    schema.SubGraphStartTensorsVector(builder, count)
    for _ in range(count):
        builder.PrependUOffsetTRelative(tensor)
    tensors = builder.EndVector()
    schema.SubGraphStart(builder)
    schema.SubGraphAddTensors(builder, tensors)
    graph = schema.SubGraphEnd(builder)
    schema.ModelStartSubgraphsVector(builder, count)
    for _ in range(count):
        builder.PrependUOffsetTRelative(graph)
    graphs = builder.EndVector()
    schema.ModelStart(builder)
    schema.ModelAddSubgraphs(builder, graphs)
    builder.Finish(schema.ModelEnd(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


@pytest.mark.parametrize(("count", "name"), [(20_000, b"x"), (50, b"x" * 1_000_000)])
def test_what_stands_for_more_than_the_file_has_is_refused(count: int, name: bytes, tmp_path: Path) -> None:
    path = tmp_path / "net.tflite"
    path.write_bytes(repeated(count, name))
    with pytest.raises(ExportError, match=r"net\.tflite cannot be read .*pointed at again and again"):
        read_file(path)
    path.write_bytes(repeated(1, b"x"))
    assert len(read_file(path).graphs) == 1
