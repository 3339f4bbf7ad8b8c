"""What ExecuTorch lowers to: its backends, how each is asked, and what each takes of a graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sekron_edge.artifacts import Artifact, Precision, Sdk, Session

from .._canonical import EXECUTORCH, EXECUTORCH_COREML, Converter
from ._clamps import taking_clamps
from ._core_ml import CoreMLDelegateSession
from ._kept import Rounded

SDK = Sdk(
    {"executorch": "executorch", "torch": "torch", "torchao": "torchao"},
    install="pip install 'sekron-edge[executorch]'",
)
Batches = list[tuple[torch.Tensor, ...]]
# No other exporter can live with the numpy and flatbuffers that tosa-tools pins; what is imported of it needs neither.
_TOSA = "pip install --no-deps tosa-tools==2026.5.0"
_NO_COMPUTATION = ("getitem", "alloc")


@dataclass(frozen=True)
class Lowering:
    """One backend.

    Attributes:
        precisions: That models are lowered in.
        runs_on: For people: where such a program runs.
        lower: From a model in evaluation mode and batches, of which the first stands for the shapes and all calibrate,
            to an ``ExecutorchProgramManager``.
        needs: The packages that lowering imports.
        kernels: Prefix of the operators that the backend puts in the place of PyTorch's; empty where it takes parts of
            the graph as a delegate.
        on_android: Whether ExecuTorch's own program runs such programs on Android.
        converter: The operators that the model is written with.
        evaluated: Loads such programs where the runtime lacks the backend; None where nothing else runs them.
        lower_keeping: Lowers in int8 with the layers of these names in float; None where nothing does.
    """

    precisions: tuple[Precision, ...]
    runs_on: str
    lower: Callable[[torch.nn.Module, Batches, Precision], Any]
    needs: Sdk = SDK
    kernels: str = ""
    on_android: bool = False
    converter: Converter = EXECUTORCH
    evaluated: Callable[[Artifact], Session] | None = None
    lower_keeping: Callable[[torch.nn.Module, Batches, Sequence[str]], Any] | None = None


def computing_share(program: Any, target: Lowering) -> float:
    """Return the share of operators, 0 to 1, that run on the target's own kernels."""
    from executorch.devtools.backend_debug import get_delegation_info

    kinds = get_delegation_info(program.exported_program().graph_module).delegation_by_operator
    computing = {name: kind for name, kind in kinds.items() if name not in _NO_COMPUTATION}
    taken = sum(
        kind.delegated + (kind.non_delegated if target.kernels and name.startswith(target.kernels) else 0)
        for name, kind in computing.items()
    )
    return float(taken / max(1, sum(kind.delegated + kind.non_delegated for kind in computing.values())))


def _xnnpack(model: torch.nn.Module, batches: Batches, precision: Precision) -> Any:
    return _by_recipe(model, batches, _xnnpack_recipe(precision))


def _xnnpack_keeping(model: torch.nn.Module, batches: Batches, keep_float: Sequence[str]) -> Any:
    recipe = _xnnpack_recipe("int8")
    for quantizer in recipe.quantization_recipe.quantizers:
        quantizer.set_filter_function(Rounded(keep_float))
    return _by_recipe(model, batches, recipe)


def _xnnpack_recipe(precision: Precision) -> Any:
    # The recipes register themselves when their provider is imported.
    from executorch.backends.xnnpack.recipes import xnnpack_recipe_provider  # noqa: F401
    from executorch.backends.xnnpack.recipes.xnnpack_recipe_types import XNNPackRecipeType
    from executorch.export import ExportRecipe

    if precision == "fp32":
        return ExportRecipe.get_recipe(XNNPackRecipeType.FP32)
    recipe = ExportRecipe.get_recipe(XNNPackRecipeType.PT2E_INT8_STATIC_PER_CHANNEL)
    recipe.quantization_recipe.quantizers = [*map(taking_clamps, recipe.quantization_recipe.quantizers)]
    return recipe


def _coreml(model: torch.nn.Module, batches: Batches, precision: Precision) -> Any:
    """In int8 weights and activations are integers, which takes iOS 17 or macOS 14."""
    from executorch.backends.apple.coreml.recipes import CoreMLRecipeProvider, CoreMLRecipeType
    from executorch.export import ExportRecipe
    from executorch.export.recipe_registry import recipe_registry

    recipe_registry.register_backend_recipe_provider(CoreMLRecipeProvider())
    kinds = {
        "fp32": CoreMLRecipeType.FP32,
        "fp16": CoreMLRecipeType.FP16,
        "int8": CoreMLRecipeType.PT2E_INT8_STATIC,
    }
    return _by_recipe(model, batches, ExportRecipe.get_recipe(kinds[precision]))


def _by_recipe(model: torch.nn.Module, batches: Batches, recipe: Any) -> Any:
    from executorch.export import export

    return export(model, batches, recipe).get_executorch_program_manager()


def _vulkan(model: torch.nn.Module, batches: Batches, precision: Precision) -> Any:
    """In fp16 everything on the GPU is; inputs and outputs stay float32."""
    from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner
    from executorch.exir import to_edge_transform_and_lower

    exported = torch.export.export(model, batches[0])
    partitioner = VulkanPartitioner({"force_fp16": precision == "fp16"})
    return to_edge_transform_and_lower(exported, partitioner=[partitioner]).to_executorch()


def _cortex_m(model: torch.nn.Module, batches: Batches, precision: Precision) -> Any:
    """For a Cortex-M55 with CMSIS-NN, which takes images channels-last in memory."""
    del precision
    from executorch.backends.cortex_m.edge_compile_config import cortex_m_edge_compile_config
    from executorch.backends.cortex_m.passes.cortex_m_pass_manager import CortexMPassManager
    from executorch.backends.cortex_m.quantizer.quantizer import CortexMQuantizer
    from executorch.backends.cortex_m.target_config import CortexM, CortexMTargetConfig
    from executorch.exir import to_edge
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    laid_out = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    batches = [tuple(map(_channels_last, batch)) for batch in batches]
    quantized = prepare_pt2e(torch.export.export(laid_out, batches[0]).module(check_guards=False), CortexMQuantizer())
    for batch in batches:
        quantized(*batch)
    exported = torch.export.export(convert_pt2e(quantized), batches[0])
    edge = to_edge(exported, compile_config=cortex_m_edge_compile_config())
    passes = CortexMPassManager(
        edge.exported_program(), CortexMPassManager.pass_list, target_config=CortexMTargetConfig(cpu=CortexM.M55)
    )
    # The backend rewrites operators in place and has no partitioner: its program takes the place of the other.
    edge._edge_programs["forward"] = passes.transform()
    return edge.to_executorch()


def _channels_last(value: torch.Tensor) -> torch.Tensor:
    return value.to(memory_format=torch.channels_last) if value.ndim == 4 else value


def _beside(package: str, module: str, *, install: str) -> Sdk:
    return Sdk({"executorch": "executorch", package: module}, install)


TARGETS: dict[str, Lowering] = {
    "": Lowering(
        ("fp32", "int8"), "any CPU with XNNPACK", _xnnpack, on_android=True, lower_keeping=_xnnpack_keeping
    ),
    "coreml": Lowering(
        ("fp32", "fp16", "int8"), "iOS and macOS, with ExecuTorch's Core ML delegate", _coreml,
        needs=_beside("coremltools", "coremltools", install="pip install 'sekron-edge[executorch,coreml]'"),
        converter=EXECUTORCH_COREML, evaluated=CoreMLDelegateSession,
    ),
    "vulkan": Lowering(("fp32", "fp16"), "Android, with ExecuTorch's Vulkan delegate", _vulkan, on_android=True),
    "cortex-m": Lowering(
        ("int8",), "a Cortex-M55, with ExecuTorch's Cortex-M kernels (CMSIS-NN)", _cortex_m,
        needs=_beside("tosa-tools", "tosa_serializer", install=_TOSA), kernels="cortex_m_",
    ),
}  # fmt: skip
