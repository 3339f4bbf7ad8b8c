"""Layers that compute with factors, and rewriting a model with them.

Requirements kept here: a forward pass never rebuilds the dense weight, except within `rebuilt_kernels`, for training;
exported layers contain only static reshape, permute, pad, convolution and linear; a rewritten model is a new one; a
module that the user's model shares stays shared.
"""

from sekron_edge.nn._admission import admitted, exportable
from sekron_edge.nn._batch_norm import fold_batch_norms_, separate_batch_norms_
from sekron_edge.nn._blocks import Block, blocks_of
from sekron_edge.nn._branched_runs import BranchedRuns
from sekron_edge.nn._branches import UnmergedBlocks, unmerged_blocks
from sekron_edge.nn._capture import CapturedGraph, capture
from sekron_edge.nn._copies import in_single, with_weights_computed
from sekron_edge.nn._equalize import equalize_labels_
from sekron_edge.nn._expose import expose_layers
from sekron_edge.nn._fake_quantize import FakeQuantized, require_rounded
from sekron_edge.nn._flat import FlatModel, Flattened, flattened
from sekron_edge.nn._geometry import layer_geometry, layer_weight
from sekron_edge.nn._graph_runs import RunnableGraph
from sekron_edge.nn._init import initialize_factors_
from sekron_edge.nn._inner_channels import InnerChannels, inner_channels
from sekron_edge.nn._layers import FactorizedConv, FactorizedLinear, factorize_layer
from sekron_edge.nn._modes import evaluation_mode, unfused_attention
from sekron_edge.nn._moments import PairedMoments, input_moments
from sekron_edge.nn._narrow import narrow, narrowed, removal_of
from sekron_edge.nn._operations import HiddenLayer, Operation, OperationGraph, layer_primitives, peak_elements
from sekron_edge.nn._outputs import errors_of, exportable_inputs, outputs_for
from sekron_edge.nn._rebuilt import rebuilt_kernels
from sekron_edge.nn._rewrite import (
    approximate_weight,
    factorize,
    factors_of,
    replace_by_factors,
    replace_layers,
    replace_weights,
    supported_layers,
    weight_of_factors,
)
from sekron_edge.nn._schedule import Step, schedule
from sekron_edge.nn._state import tied_names, untied_state, whole_state
from sekron_edge.nn._taps import ConvGeometry
from sekron_edge.nn._trace import operations

__all__ = [
    "Block",
    "BranchedRuns",
    "CapturedGraph",
    "ConvGeometry",
    "FactorizedConv",
    "FactorizedLinear",
    "FakeQuantized",
    "FlatModel",
    "Flattened",
    "HiddenLayer",
    "InnerChannels",
    "Operation",
    "OperationGraph",
    "PairedMoments",
    "RunnableGraph",
    "Step",
    "UnmergedBlocks",
    "admitted",
    "approximate_weight",
    "blocks_of",
    "capture",
    "equalize_labels_",
    "errors_of",
    "evaluation_mode",
    "exportable",
    "exportable_inputs",
    "expose_layers",
    "factorize",
    "factorize_layer",
    "factors_of",
    "flattened",
    "fold_batch_norms_",
    "in_single",
    "initialize_factors_",
    "inner_channels",
    "input_moments",
    "layer_geometry",
    "layer_primitives",
    "layer_weight",
    "narrow",
    "narrowed",
    "operations",
    "outputs_for",
    "peak_elements",
    "rebuilt_kernels",
    "removal_of",
    "replace_by_factors",
    "replace_layers",
    "replace_weights",
    "require_rounded",
    "schedule",
    "separate_batch_norms_",
    "supported_layers",
    "tied_names",
    "unfused_attention",
    "unmerged_blocks",
    "untied_state",
    "weight_of_factors",
    "whole_state",
    "with_weights_computed",
]
