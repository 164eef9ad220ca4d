"""All families at once: is it answered, in time, well, and does the error budget hold?"""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from deploy.grafana.panels import HALF, THIRD, board, graph, number, quantiles


def overview() -> dashboard.Dashboard:
    """The first one to look at."""
    answered = "rate(pareto_request_latency_seconds_count[$__rate_interval])"
    return (
        board("pareto-overview", "Pareto Gateway: overview", "Is it answered, in time, and how well?")
        .with_panel(number("Replicas that take requests", "none", "sum(pareto_ready)"))
        .with_panel(number("Requests", "reqps", "sum(rate(pareto_requests_total[$__rate_interval]))"))
        .with_panel(
            number(
                "In time",
                "percentunit",
                "sum(rate(pareto_slo_met_total[$__rate_interval]))"
                " / sum(rate(pareto_slo_judged_total[$__rate_interval]))",
                "Of the requests that had an SLO, refused ones included.",
            )
        )
        .with_panel(
            number(
                "Accuracy",
                "percentunit",
                f"sum(rate(pareto_served_quality_sum_total[$__rate_interval])) / sum({answered})",
                "Mean measured accuracy of the variants that answered.",
            )
        )
        .with_panel(
            number(
                "Refused or failed",
                "percentunit",
                'sum(rate(pareto_requests_total{outcome!~"served|served_late|cancelled"}[$__rate_interval]))'
                " / sum(rate(pareto_requests_total[$__rate_interval]))",
            )
        )
        .with_panel(
            number(
                "Slots busy",
                "percentunit",
                "sum(rate(pareto_executor_busy_seconds_total[$__rate_interval])) / sum(pareto_slots)",
            )
        )
        .with_panel(
            graph(
                "Requests by model",
                "reqps",
                ("sum by (model) (rate(pareto_requests_total[$__rate_interval]))", "{{model}}"),
                stacked=True,
            )
        )
        .with_panel(
            graph(
                "Requests by outcome",
                "reqps",
                ("sum by (outcome) (rate(pareto_requests_total[$__rate_interval]))", "{{outcome}}"),
                stacked=True,
            )
        )
        .with_panel(
            graph(
                "In time by model",
                "percentunit",
                ("pareto:slo_attainment:ratio_rate5m", "{{model}}"),
                about="Over five minutes, refused requests included.",
                most=1.0,
                span=THIRD,
            )
        )
        .with_panel(
            graph(
                "Accuracy by model",
                "percentunit",
                ("pareto:served_quality:mean_rate5m", "{{model}}"),
                about="Mean measured accuracy of the variants that answered, over five minutes.",
                most=1.0,
                span=THIRD,
            )
        )
        .with_panel(graph("Latency", "s", *quantiles("pareto_request_latency_seconds"), span=THIRD))
        .with_panel(
            graph(
                "Error budget: speed of spending",
                "none",
                ("slo:current_burn_rate:ratio", "{{model}}"),
                about="Over five minutes; at 1 the budget of the period is spent at its end. Alerts: docs/alerts.md.",
                span=THIRD,
            )
        )
        .with_panel(
            graph(
                "Error budget: what is left",
                "percentunit",
                ("slo:period_error_budget_remaining:ratio", "{{model}}"),
                about="Of the period; negative once more is spent than there was.",
                most=1.0,
                span=THIRD,
            )
        )
        .with_panel(
            graph(
                "Faulty requests by status",
                "reqps",
                ("sum by (status) (rate(pareto_protocol_errors_total[$__rate_interval]))", "{{status}}"),
                about="Refused before they were queued; in none of the other panels.",
                span=THIRD,
            )
        )
        .with_panel(
            graph(
                "Rows that wait",
                "none",
                ("sum(pareto_queued_rows)", "rows"),
                ("sum(pareto_unfinished_requests)", "unfinished requests"),
                span=HALF,
            )
        )
        .with_panel(
            graph(
                "How evenly families fare",
                "percentunit",
                ("avg(pareto_attainment_jain_ratio)", "Jain's index"),
                ("min(pareto_attainment_least_ratio)", "the least attainment"),
                about="Of the families' attainments in the last minute.",
                most=1.0,
                span=HALF,
            )
        )
    )
