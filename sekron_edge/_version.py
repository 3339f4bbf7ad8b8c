"""The version, where every module may read it: part of the keys of what is remembered."""

__version__ = "0.1.0"
