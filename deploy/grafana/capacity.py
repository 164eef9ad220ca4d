"""The machine: slots, rows that wait, memory, processor, loads and unloads, and what the outer loop advises."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from deploy.grafana.panels import HALF, THIRD, board, graph, quantiles

RATE = "[$__rate_interval]"


def capacity() -> dashboard.Dashboard:
    """What there is and what is used of it, replica by replica."""
    shown = board("pareto-capacity", "Pareto Gateway: capacity", "What there is, and what is used of it.")
    _slots(shown)
    _memory(shown)
    _beside(shown)
    return shown


def _slots(shown: dashboard.Dashboard) -> None:
    shown.with_panel(
        graph(
            "Slots busy",
            "percentunit",
            (f"sum by (instance, slot) (rate(pareto_executor_busy_seconds_total{RATE}))", "{{instance}} slot {{slot}}"),
            ("pareto:executors_busy:ratio_rate5m", "all, over five minutes"),
            most=1.0,
            span=THIRD,
        )
    ).with_panel(
        graph(
            "Rows that wait",
            "none",
            ("sum by (instance) (pareto_queued_rows)", "{{instance}}"),
            ("sum by (instance) (pareto_cold_rows)", "{{instance}} for a load"),
            span=THIRD,
        )
    ).with_panel(
        graph(
            "Rows answered",
            "rowsps",
            (f"sum by (model) (rate(pareto_answered_rows_total{RATE}))", "{{model}}"),
            span=THIRD,
            stacked=True,
        )
    )


def _memory(shown: dashboard.Dashboard) -> None:
    shown.with_panel(
        graph(
            "Memory",
            "bytes",
            ("sum by (instance) (pareto_memory_resident_bytes)", "{{instance}} resident"),
            ("sum by (instance) (pareto_memory_budget_bytes)", "{{instance}} budget"),
            about="Where a memory_budget is set: docs/memory.md.",
            span=THIRD,
        )
    ).with_panel(
        graph(
            "Memory by model",
            "bytes",
            ("sum by (model) (pareto_model_bytes)", "{{model}}"),
            about="What loaded variants are thought to take.",
            span=THIRD,
            stacked=True,
        )
    ).with_panel(
        graph(
            "Variants loaded and unloaded",
            "ops",
            (f"sum by (result) (rate(pareto_model_loads_total{RATE}))", "{{result}}"),
            (f"sum(rate(pareto_model_evictions_total{RATE}))", "unloaded"),
            span=THIRD,
        )
    ).with_panel(
        graph("Loading a variant", "s", *quantiles("pareto_model_load_seconds", since_start=True), span=HALF)
    ).with_panel(
        graph(
            "Cold families",
            "none",
            (f"sum(rate(pareto_cold_wait_seconds_count{RATE}))", "loads that somebody waited for, per second"),
            (f"sum(rate(pareto_cold_wait_seconds_sum{RATE}))", "seconds waited, per second"),
            about="Families that were asked for while nothing of them was in memory.",
            span=HALF,
        )
    )


def _beside(shown: dashboard.Dashboard) -> None:
    shown.with_panel(
        graph(
            "Processor",
            "none",
            (f"sum by (instance) (rate(process_cpu_seconds_total{RATE}))", "{{instance}}"),
            about="Cores that the serving process uses.",
            span=THIRD,
        )
    ).with_panel(
        graph(
            "Caution that the outer loop asks for",
            "none",
            ("max by (model) (pareto_outer_loop_caution_ratio)", "{{model}}"),
            ("min(pareto_outer_loop_fresh)", "advice in force"),
            about="What planning margins are multiplied by; 1 is as without it.",
            span=THIRD,
        )
    ).with_panel(
        graph(
            "Spans of traces",
            "ops",
            (f"sum by (result) (rate(pareto_trace_spans_total{RATE}))", "{{result}}"),
            about="Where a traces_endpoint is set: docs/traces.md.",
            span=THIRD,
        )
    )
