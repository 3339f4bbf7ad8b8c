"""Cost models that tests can reckon with."""

from collections.abc import Sequence

from sekron_edge.primitives import Primitive


class MacsAreTime:
    """A cost model for tests: a nanosecond a MAC, a microsecond an operation."""

    source = "a test's own"

    def latency_ms(self, primitives: Sequence[Primitive]) -> float:
        return sum((primitive.macs * 1e-6 + 1e-3 for primitive in primitives), 0.0)


class CallsAreTime:
    """Another device: nothing but the number of operations counts."""

    source = "another device"

    def latency_ms(self, primitives: Sequence[Primitive]) -> float:
        return 1e-3 * len(primitives)
