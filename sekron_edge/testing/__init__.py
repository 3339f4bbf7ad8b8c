"""Contract tests for exporters, to subclass."""
