"""A latency model drawn beside the timings that it was fitted to."""

from __future__ import annotations

from collections.abc import Mapping

from sekron_edge.latency._features import kind
from sekron_edge.latency._model import LatencyModel
from sekron_edge.primitives import Primitive


def draw_latency_model(model: LatencyModel, measured: Mapping[Primitive, float]) -> str:
    """Return a page that opens offline: each operation's predicted time against its measured one, by kind.

    Args:
        model: The latency model.
        measured: Milliseconds of operations, without the call; some were fitted, others only judge the fit.
    """
    from plotly import graph_objects as go

    ends = [min(measured.values()), max(measured.values())]
    exact = go.Scatter(name="exact", x=ends, y=ends, mode="lines", line={"color": "#888", "dash": "dot"})
    figure = go.Figure([exact])
    for name, own in model.kinds.items():
        members = [primitive for primitive in measured if kind(primitive) == name]
        error = "" if own.median_error is None else f", {own.median_error:.0%} held out"
        figure.add_scatter(
            name=f"{name}{error}",
            x=[measured[primitive] for primitive in members],
            y=[model.latency_ms([primitive]) for primitive in members],
            text=[str(primitive) for primitive in members],
            mode="markers",
        )
    figure.update_layout(title=model.source, xaxis_title="measured ms", yaxis_title="predicted ms", height=800)
    figure.update_xaxes(type="log").update_yaxes(type="log")
    page: str = figure.to_html(include_plotlyjs=True)
    return page
