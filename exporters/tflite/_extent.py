"""How much a .tflite file says, against how long it is: what it says once may be pointed at again and again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def require_extent(model: Any, size: int) -> None:
    """Refuse a file whose vectors and names together are longer than the file: a few bytes would become hours.

    Each element takes four bytes where it stands, so no file of a converter comes near.

    Args:
        model: The root, as the schema's lazy reader has it.
        size: Of the file, in bytes.

    Raises:
        ValueError: If so.
    """
    left = size
    for length in _lengths(model):
        left -= length
        if left < 0:
            raise ValueError("parts of it stand for more than the file has bytes: they are pointed at again and again")


def _lengths(model: Any) -> Iterator[int]:
    """Yield the length of each vector before what is in it is looked at."""
    yield model.BuffersLength()
    yield model.ExternalBuffersLength()
    yield model.ExternalBufferGroupsLength()
    yield model.OperatorCodesLength()
    for number in range(model.OperatorCodesLength()):
        yield len(model.OperatorCodes(number).CustomCode() or b"")
    yield model.MetadataLength()
    for number in range(model.MetadataLength()):
        buffer = model.Metadata(number).Buffer()
        if 0 <= buffer < model.BuffersLength():  # another number is refused where it is read
            yield model.Buffers(buffer).DataLength()
    yield model.SignatureDefsLength()
    for number in range(model.SignatureDefsLength()):
        yield model.SignatureDefs(number).InputsLength()
        yield model.SignatureDefs(number).OutputsLength()
    yield model.SubgraphsLength()
    for number in range(model.SubgraphsLength()):
        yield from _graph_lengths(model.Subgraphs(number))


def _graph_lengths(graph: Any) -> Iterator[int]:
    yield graph.InputsLength()
    yield graph.OutputsLength()
    yield graph.TensorsLength()
    for number in range(graph.TensorsLength()):
        tensor = graph.Tensors(number)
        yield len(tensor.Name() or b"")
        yield tensor.ShapeLength()
        yield tensor.VariantTensorsLength()
        if (sparsity := tensor.Sparsity()) is not None:
            yield sparsity.DimMetadataLength()
    yield graph.OperatorsLength()
    for number in range(graph.OperatorsLength()):
        operator = graph.Operators(number)
        yield operator.InputsLength()
        yield operator.OutputsLength()
