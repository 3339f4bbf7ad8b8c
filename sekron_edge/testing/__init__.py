"""Contracts as test classes: a plug-in's tests inherit one and give it what to test."""

from sekron_edge.testing._exporters import ExporterContract

__all__ = ["ExporterContract"]
