"""Cost models that tests can reckon with."""


class MacsAreTime:
    """A cost model for tests: a nanosecond a MAC, a microsecond an operation."""

    source = "a test's own"

    def latency_ms(self, primitives):
        return sum(primitive.macs * 1e-6 + 1e-3 for primitive in primitives)


class CallsAreTime:
    """Another device: nothing but the number of operations counts."""

    source = "another device"

    def latency_ms(self, primitives):
        return 1e-3 * len(primitives)
