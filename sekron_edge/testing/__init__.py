"""Contracts as test classes: a plug-in's tests inherit one and give it what to test."""

from sekron_edge.testing._devices import DeviceContract
from sekron_edge.testing._exporters import ExporterContract

__all__ = ["DeviceContract", "ExporterContract"]
