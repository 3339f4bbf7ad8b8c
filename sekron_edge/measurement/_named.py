"""Devices by the names that users give them."""

from __future__ import annotations

from collections.abc import Sequence

from sekron_edge.arguments import require
from sekron_edge.artifacts import Array, Artifact
from sekron_edge.errors import ConfigError
from sekron_edge.measurement._conditions import Conditions
from sekron_edge.measurement._device import Device
from sekron_edge.measurement._records import ComputeUnits, Measurement
from sekron_edge.measurement._transports import find_transport, known_transports
from sekron_edge.measurement._user_devices import settings_for


def open_device(name: str) -> Device:
    """Return the device of a name; nothing is connected yet.

    Args:
        name: ``local``, this machine; ``ssh:NAME``, a board: a table of the user's ``devices.toml``, or a host that
            ssh knows; ``adb:NAME``, Android: such a table, or a serial number; or that of another transport.

    Raises:
        ConfigError: If there is no such device, or the user's file is not correct.
    """
    prefix, colon, alias = name.partition(":")
    transport = find_transport(prefix)
    if transport is not None and transport.named and alias:
        return transport.open(alias, settings_for(transport, alias))
    if transport is not None and not transport.named and not colon:
        return transport.open(alias, transport.settings())
    known = sorted(known_transports(), key=lambda one: (one.named, one.name))
    names = [f"{one.name}:NAME" if one.named else one.name for one in known]
    raise ConfigError(f"no device {name!r}; name {', or '.join(names)}")


def measure(
    artifact: Artifact,
    device: str = "local",
    *,
    inputs: Sequence[Array] | None = None,
    runs: int = 50,
    warmup: int = 10,
    threads: int = 1,
    affinity: Sequence[int] = (),
    compute_units: ComputeUnits = "ALL",
    operators: bool = False,
    timeout_s: float = 600.0,
) -> Measurement:
    """Measure the latency and the memory of an artifact on a device.

    A run is one call of the runtime with the inputs handed over and the outputs fetched.

    Args:
        artifact: What to run.
        device: As for `open_device`.
        inputs: Arrays in PyTorch's layout; random values if None.
        runs: The least number of timed runs; a fast model gets more, up to half a second.
        warmup: Least number of runs before the first that counts; warming up goes on until the times settle.
        threads: Threads the runtime may use.
        affinity: Cores to run on; as the system likes if none.
        compute_units: That Core ML may use.
        operators: Whether to time single operators too, where the runtime can.
        timeout_s: After so many seconds the measurement is given up.

    Raises:
        ConfigError: If there is no such device.
        DeviceError: If the runtime cannot run there, crashes, or takes too long.
    """
    require(artifact, Artifact, "artifact", "what sekron_edge.export returned")
    conditions = Conditions(
        runs=runs,
        warmup=warmup,
        threads=threads,
        affinity=tuple(affinity),
        compute_units=compute_units,
        operators=operators,
        timeout_s=timeout_s,
    )
    return open_device(device).measure(artifact, conditions, inputs=inputs)
