"""What is known of devices: their profiles, whether an artifact fits one, what microcontrollers take.

Requirements kept here: every fact says where it is from, and an estimated figure says so; nothing here imports torch.
"""

from sekron_edge.devices._fit import device_limits, require_fit
from sekron_edge.devices._microcontroller import (
    CYCLES_PER_MAC,
    CyclesPerMac,
    cycles_per_mac,
    footprint,
    microcontroller_latency,
)
from sekron_edge.devices._profile import DeviceProfile, Fact, load_profile, profile_ids

__all__ = [
    "CYCLES_PER_MAC",
    "CyclesPerMac",
    "DeviceProfile",
    "Fact",
    "cycles_per_mac",
    "device_limits",
    "footprint",
    "load_profile",
    "microcontroller_latency",
    "profile_ids",
    "require_fit",
]
