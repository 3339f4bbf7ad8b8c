"""Inner channels: those that few layers see, and that may be left out without any new operator.

The expansion of an inverted residual (expand, depthwise, squeeze-and-excite, project) and the middle of a residual
block have such channels: what makes them is narrower without them, what reads them too, and nothing else notices.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

from torch import fx, nn

from sekron_edge import pytrees
from sekron_edge.nn._capture import CapturedGraph, capture, shape_of
from sekron_edge.nn._rewrite import supported_layers
from sekron_edge.nn._weight_operators import bound, kind_of

_ELEMENTWISE = frozenset((
    "relu", "relu_", "relu6", "relu6_", "hardtanh", "hardtanh_", "clamp", "clamp_", "clamp_min", "sigmoid", "sigmoid_",
    "tanh", "silu", "silu_", "gelu", "hardswish", "hardswish_", "hardsigmoid", "hardsigmoid_", "elu", "elu_",
    "leaky_relu", "leaky_relu_", "mish", "softplus", "dropout", "dropout_", "feature_dropout", "alias", "clone",
    "contiguous", "detach", "to",
))  # fmt: skip
_POOLS = frozenset((
    "max_pool1d", "max_pool2d", "avg_pool1d", "avg_pool2d", "adaptive_avg_pool1d", "adaptive_avg_pool2d",
    "adaptive_max_pool2d", "upsample_nearest2d", "upsample_bilinear2d",
))  # fmt: skip
_PRODUCTS = frozenset(("mul", "mul_"))
_VIEWS = frozenset(("flatten", "reshape", "view"))
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class InnerChannels:
    """Channels between layers that nothing else sees.

    Attributes:
        channels: Number of them.
        producers: Names of the layers that give them; the first one in the order in which they run names them.
        between: Names of depthwise convolutions and batch norms on their way.
        consumers: Names of the layers that read them, with the number of values that each reads of one channel beside
            its kernel: of a linear layer after flattened images, their places.
    """

    channels: int
    producers: tuple[str, ...]
    between: tuple[str, ...]
    consumers: Mapping[str, int]

    @property
    def name(self) -> str:
        """The first layer that gives them."""
        return self.producers[0]


def inner_channels(model: nn.Module, inputs: pytrees.Inputs) -> dict[str, InnerChannels]:
    """Return the inner channels of a model by the name of the first layer that gives them, in the order they run in.

    A layer that is called twice, is tied, or computes otherwise than PyTorch's has none; nor have channels that are
    added to others, joined with others, or given by the model.

    Args:
        model: Traced in evaluation mode; left as it was.
        inputs: As `sekron_edge.pytrees.call` takes them.

    Raises:
        ExportError: If torch.export cannot trace the model.
    """
    graph = _Modules(model, capture(model, inputs))
    found: dict[str, InnerChannels] = {}
    taken: set[str] = set()
    for node in graph.layer_nodes():
        if graph.is_depthwise(node) or graph.names[node] in taken:
            continue
        channels = _Closure(graph, node).result()
        if channels is not None:
            found[channels.name] = channels
            taken.update(channels.producers)
    return found


class _Modules:
    """Which module computes which node: only modules that are called once, and that compute what PyTorch's do."""

    def __init__(self, model: nn.Module, captured: CapturedGraph) -> None:
        supported, refused = supported_layers(model)
        modules = dict(model.named_modules())
        plain = {name: modules[name] for name in (*supported, *refused) if isinstance(modules[name], _LAYERS)}
        plain |= {name: module for name, module in modules.items() if isinstance(module, _NORMS)}
        self.captured = captured
        self.modules: dict[fx.Node, nn.Module] = {}
        self.names: dict[fx.Node, str] = {}
        seen: dict[str, int] = {}
        for node in captured.graph.nodes:
            weight = _weight_of(node, captured)
            name = None if weight is None else captured.names[weight].rpartition(".")[0]
            if name in plain:
                self.names[node], self.modules[node] = name, plain[name]
                seen[name] = seen.get(name, 0) + 1
        for node in [node for node, name in self.names.items() if seen[name] > 1]:
            del self.names[node], self.modules[node]

    def layer_nodes(self) -> Iterator[fx.Node]:
        """Yield the calls of convolutions and linear layers."""
        yield from (node for node, module in self.modules.items() if isinstance(module, _LAYERS))

    def is_layer(self, node: fx.Node) -> bool:
        """Whether a node is the call of a convolution of one group, or of a linear layer."""
        module = self.modules.get(node)
        return isinstance(module, _LAYERS) and getattr(module, "groups", 1) == 1

    def is_depthwise(self, node: fx.Node) -> bool:
        """Whether a node is the call of a convolution that gives each channel for one that it reads."""
        module = self.modules.get(node)
        if not isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            return False
        return 1 < module.groups == module.in_channels == module.out_channels

    def is_norm(self, node: fx.Node) -> bool:
        """Whether a node is the call of a batch norm."""
        return isinstance(self.modules.get(node), _NORMS)


def _weight_of(node: fx.Node, captured: CapturedGraph) -> fx.Node | None:
    """Return the parameter that an operator has as its weight; None if it has none, or one that is computed."""
    if node.op != "call_function" or kind_of(node) not in ("linear", "conv1d", "conv2d", "conv3d", "batch_norm"):
        return None
    weight = bound(node).get("weight")
    return weight if isinstance(weight, fx.Node) and weight in captured.names else None


class _Closure:
    """All values with the channels of one layer's output, back to what makes them, and on to what reads them."""

    def __init__(self, graph: _Modules, start: fx.Node) -> None:
        self._graph = graph
        self._axis = -1 if isinstance(graph.modules[start], nn.Linear) else 1
        self._channels = shape_of(start)[self._axis]
        self._places: dict[fx.Node, int] = {start: 1}  # values of one channel side by side, by value
        self._producers: list[fx.Node] = []
        self._between: list[fx.Node] = []
        self._consumers: dict[fx.Node, int] = {}
        self._waiting = [start]
        self._whole = True

    def result(self) -> InnerChannels | None:
        """Return the channels; None if they are not all of those of a few layers."""
        while self._waiting and self._whole:
            value = self._waiting.pop()
            self._whole = self._back(value) and all(self._on(value, user) for user in value.users)
        reads = {self._graph.names[node]: places for node, places in self._consumers.items()}
        names = [self._graph.names[node] for node in self._in_order(self._producers)]
        if not self._whole or not reads or reads.keys() & set(names):
            return None
        between = tuple(self._graph.names[node] for node in self._in_order(self._between))
        return InnerChannels(self._channels, tuple(names), between, reads)

    def _in_order(self, nodes: list[fx.Node]) -> list[fx.Node]:
        order = {node: place for place, node in enumerate(self._graph.names)}
        return sorted(nodes, key=order.__getitem__)

    def _back(self, value: fx.Node) -> bool:
        """Follow a value to what makes it; return False if others have a part in it."""
        graph, kind = self._graph, kind_of(value)
        if graph.is_layer(value):
            self._producers.append(value)
            return True
        if kind in _PRODUCTS:
            return self._factors(value)
        if not self._leaves_channels(value):
            return False
        if graph.is_depthwise(value) or graph.is_norm(value):
            self._between.append(value)
        return self._same(value.args[0], value)

    def _on(self, value: fx.Node, user: fx.Node) -> bool:
        """Follow a value to one of those that read it; return False if that needs all channels."""
        graph, kind = self._graph, kind_of(user)
        if user in self._places:
            return True
        if graph.is_layer(user) and user.args[0] is value and self._is_read_by(value, user):
            self._consumers[user] = self._places[value]
            return True
        if kind in _PRODUCTS:
            return self._add(user, self._places[value])
        if user.args[0] is not value or not self._leaves_channels(user):
            return False
        places = prod(shape_of(value)[2:]) if kind in _VIEWS else 1
        return self._add(user, places * self._places[value])

    def _leaves_channels(self, node: fx.Node) -> bool:
        """Whether an operator computes each channel by itself: after linear layers the channels are the last axis."""
        graph, kind = self._graph, kind_of(node)
        if kind in _ELEMENTWISE:
            return True
        if graph.is_norm(node):
            return self._axis == 1 or len(shape_of(node)) == 2
        if self._axis != 1:
            return False
        if kind in _VIEWS:
            return len(shape_of(node)) == 2
        return kind in _POOLS or graph.is_depthwise(node) or self._is_mean(node)

    def _is_read_by(self, value: fx.Node, layer: fx.Node) -> bool:
        """Whether a layer contracts the channels of a value: linear layers contract the last axis."""
        shape = shape_of(value)
        if isinstance(self._graph.modules[layer], nn.Linear):
            return self._axis == -1 or len(shape) == 2
        return self._axis == 1

    def _is_mean(self, node: fx.Node) -> bool:
        """Whether a node is a mean over places, not over channels."""
        source = node.args[0] if node.args else None
        if kind_of(node) != "mean" or not isinstance(source, fx.Node):
            return False
        axes = bound(node).get("dim")
        rank = len(shape_of(source))
        return isinstance(axes, list | tuple) and all(int(axis) % rank > 1 for axis in axes)

    def _factors(self, product: fx.Node) -> bool:
        """Follow the factors of a product: a scale has the same channels, or is one number for each place."""
        for source in product.all_input_nodes:
            shape = shape_of(source)
            if self._graph.captured.is_constant(source):
                return False
            has_channels = len(shape) == len(shape_of(product)) and shape[self._axis] == self._channels
            if has_channels and not self._same(source, product):
                return False
            if not has_channels and prod(shape[1:]) != prod(shape[2:]):
                return False
        return True

    def _same(self, source: fx.node.Argument, value: fx.Node) -> bool:
        """Take what a value is made of for one with the same channels."""
        if not isinstance(source, fx.Node):
            return False
        places = self._places[value]
        if kind_of(value) in _VIEWS:
            places //= max(1, prod(shape_of(source)[2:]))
        return self._add(source, places)

    def _add(self, value: fx.Node, places: int) -> bool:
        if value not in self._places:
            self._places[value] = places
            self._waiting.append(value)
        shape = shape_of(value)
        return len(shape) > 1 and shape[self._axis] == self._channels * places
