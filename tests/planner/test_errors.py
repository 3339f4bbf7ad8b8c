"""Errors of layers' outputs."""

import pytest
import torch

from sekron_edge.planner._errors import _Metric


def test_a_large_moment_is_reduced_to_where_its_energy_is() -> None:
    """Exact to a percent on a spectrum that decays, and not reduced at all where it does not."""
    generator = torch.Generator().manual_seed(0)
    size = 1024
    basis = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q
    change = torch.randn(8, size, generator=generator, dtype=torch.float64)
    for decay, reduced in ((0.05, True), (0.0, False)):
        sigma = (basis * torch.exp(-decay * torch.arange(size, dtype=torch.float64))) @ basis.T
        metric = _Metric(sigma)
        assert (metric._near is not None) == reduced
        exact = float(((change @ sigma) * change).sum())
        assert metric.energy(change) == pytest.approx(exact, rel=1e-2)
