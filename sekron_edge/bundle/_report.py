"""``report.html``: one file that opens offline."""

from __future__ import annotations

from plotly import graph_objects as go
from plotly.offline import get_plotlyjs

from sekron_edge.bundle._manifest import Delivery, Manifest, Score
from sekron_edge.bundle._snippets import templates
from sekron_edge.measurement import LocalDevice
from sekron_edge.planner import Plan


def render_report(manifest: Manifest, plan: Plan) -> str:
    """Return the report as HTML: before and after, budgets, layers, plots, proofs."""
    plots = [_layer_latency(plan), _layer_error(plan), _frontier(plan), _measured(manifest)]
    divs = [plot.to_html(full_html=False, include_plotlyjs=False) for plot in plots if plot is not None]
    page = templates().get_template("report.html")
    main = next(
        d for d in manifest.deliveries if (d.artifact.format, d.artifact.precision) == (plan.runtime, plan.precision)
    )
    return page.render(
        manifest=manifest,
        plan=plan,
        main=main,
        plots=divs,
        plotly=get_plotlyjs(),
        rows=before_and_after(manifest),
        budgets=budget_rows(manifest),
        quantity=_quantity,
    )


def before_and_after(manifest: Manifest) -> list[tuple[str, str, str, str]]:
    """Return the rows ``(figure, dense, delivered, ratio)`` of the report's first table."""
    score, dense, delivered = manifest.score, manifest.dense, manifest.delivered
    better = "" if score.higher_is_better else "; less is better"
    rows = [
        (f"{score.metric} (held out, {score.samples:,} samples{better})", score.shown(score.dense),
         score.shown(score.delivered), score.change),
        ("parameters", f"{dense.parameters:,}", f"{delivered.parameters:,}",
         _fewer(dense.parameters, delivered.parameters)),
        ("MACs", f"{dense.macs:,}", f"{delivered.macs:,}", _fewer(dense.macs, delivered.macs)),
    ]  # fmt: skip
    for delivery in manifest.deliveries:
        rows += _delivery_rows(delivery, score)
    return rows


def budget_rows(manifest: Manifest) -> list[tuple[str, str, str, str, str]]:
    """Return the rows ``(entry, limit, found, how, verdict)``: every promise, and whether it is kept."""
    return [
        (r.entry, _quantity(r.limit), _quantity(r.found), r.how, "kept" if r.kept else "missed")
        for r in manifest.results
    ]


def _quantity(value: float) -> str:
    """Show whole large numbers in full, others with four digits."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _delivery_rows(delivery: Delivery, score: Score) -> list[tuple[str, str, str, str]]:
    artifact, new, old = delivery.artifact, delivery.measured, delivery.dense_measured
    name = f"{artifact.format} {artifact.precision}"
    small = artifact.size_bytes
    rows = [(f"{name}: bytes", f"{delivery.dense_bytes:,}", f"{small:,}", _fewer(delivery.dense_bytes, small))]
    if delivery.score is not None and delivery.dense_score is not None:
        on = "held-out data" if delivery.scored_samples is None else f"{delivery.scored_samples:,} held-out samples"
        label = f"{name}: {score.metric} of the artifact, {on}"
        rows.append((label, score.shown(delivery.dense_score), score.shown(delivery.score), ""))
    arena, dense_arena = artifact.arena, delivery.dense_arena_bytes
    if arena is not None and dense_arena is not None:
        label = f"{name}: arena, tested, {arena.margin:.0%} margin"
        ratio = _fewer(dense_arena, arena.size_bytes)
        rows.append((label, f"{dense_arena:,} B", f"{arena.size_bytes:,} B", ratio))
    npu, dense_npu = artifact.npu, delivery.dense_npu
    if npu is not None and dense_npu is not None:
        label = f"{name}: cycles, estimated for {npu.accelerator}, not measured"
        rows.append((label, f"{dense_npu.cycles:,}", f"{npu.cycles:,}", _fewer(dense_npu.cycles, npu.cycles)))
        before, after = dense_npu.sram_bytes, npu.sram_bytes
        rows.append((f"{name}: SRAM, estimated", f"{before:,} B", f"{after:,} B", _fewer(before, after)))
        left = "; ".join(npu.on_cpu) or "none"
        rows.append((f"{name}: operators left to the CPU", f"{len(dense_npu.on_cpu)}", left, ""))
    if new is None or old is None:
        rows.append((f"{name}: latency", "not measured here", "not measured here", ""))
        return rows
    where = "here" if new.device == LocalDevice.name else f"on {new.device}"
    noisy = "" if new.stable and old.stable else " (too noisy to quote)"
    threads = f"{new.threads} thread{'s' if new.threads > 1 else ''}"
    label = f"{name}: median latency, measured {where}, {threads}{noisy}"
    ratio = _times(old.median_ms / new.median_ms, "faster", "slower")
    ratio += "" if delivery.pair is None else f" ({delivery.pair})"
    rows.append((label, f"{old.median_ms:.4g} ms", f"{new.median_ms:.4g} ms", ratio))
    if new.peak_memory_bytes is not None and old.peak_memory_bytes is not None:
        before, after = old.peak_memory_bytes, new.peak_memory_bytes
        rows.append((f"{name}: peak memory, measured {where}", f"{before:,} B", f"{after:,} B", _fewer(before, after)))
    return rows


def _fewer(dense: float, delivered: float) -> str:
    return _times(dense / delivered, "less", "more") if delivered else ""


def _times(ratio: float, better: str, worse: str) -> str:
    """Return a ratio in words whose number is never below 1."""
    return f"{ratio:.2f}x {better}" if ratio >= 1 else f"{1 / ratio:.2f}x {worse}"


def _layer_latency(plan: Plan) -> go.Figure:
    names = [layer.name for layer in plan.layers]
    figure = go.Figure(
        [
            go.Bar(name="dense", x=names, y=[layer.dense.latency_ms for layer in plan.layers]),
            go.Bar(name="delivered", x=names, y=[layer.cost.latency_ms for layer in plan.layers]),
        ]
    )
    return figure.update_layout(title="Predicted latency of each layer", yaxis_title="ms")


def _layer_error(plan: Plan) -> go.Figure:
    names = [layer.name for layer in plan.layers]
    figure = go.Figure([go.Bar(x=names, y=[layer.relative_error for layer in plan.layers])])
    title = f"Relative error of each layer before fine-tuning ({plan.error_source})"
    return figure.update_layout(title=title, yaxis_title="relative error")


def _frontier(plan: Plan) -> go.Figure | None:
    if not plan.frontier:
        return None
    costs = [point.cost for point in plan.frontier]
    others = go.Scatter(
        name="other budgets of latency", mode="lines+markers", x=[cost.latency_ms for cost in costs],
        y=[point.predicted_loss for point in plan.frontier],
        text=[f"{cost.artifact_bytes:,.0f} bytes" for cost in costs],
    )  # fmt: skip
    chosen = go.Scatter(
        name="this plan", mode="markers", marker={"size": 12, "symbol": "star"}, x=[plan.cost.latency_ms],
        y=[plan.solver.objective], text=[f"{plan.cost.artifact_bytes:,.0f} bytes"],
    )  # fmt: skip
    title = "What other budgets would give: divergence from the original, before fine-tuning, as predicted"
    return go.Figure([others, chosen]).update_layout(
        title=title, xaxis_title="predicted ms", yaxis_title="predicted divergence"
    )


def _measured(manifest: Manifest) -> go.Figure | None:
    known = [d for d in manifest.deliveries if d.measured is not None and d.dense_measured is not None]
    if not known:
        return None
    names = [f"{d.artifact.format} {d.artifact.precision}" for d in known]
    bars = []
    for label, own in (("dense", [d.dense_measured for d in known]), ("delivered", [d.measured for d in known])):
        seen = [m for m in own if m is not None]
        above = [(m.p90_ms or m.median_ms) - m.median_ms for m in seen]
        below = [m.median_ms - m.min_ms for m in seen]
        error = {"type": "data", "symmetric": False, "array": above, "arrayminus": below}
        bars.append(go.Bar(name=label, x=names, y=[m.median_ms for m in seen], error_y=error))
    title = "Measured latency: median, with least and 90th percentile"
    return go.Figure(bars).update_layout(title=title, yaxis_title="ms")
