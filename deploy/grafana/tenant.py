"""One tenant: what it asks for, what becomes of it, and how well it is served beside the others."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from deploy.grafana.panels import HALF, board, choice, graph, number

OF = '{tenant="$tenant"}'
RATE = "[$__rate_interval]"


def tenant() -> dashboard.Dashboard:
    """A tenant with a label of its own, `default-flow` (who names none) or `other` (all the rest)."""
    choose = choice("tenant", "Tenant", "label_values(pareto_requests_total, tenant)")
    asked = f"sum(rate(pareto_requests_total{OF}{RATE}))"
    return (
        board("pareto-tenant", "Pareto Gateway: tenant", "What it asks for, and what becomes of it.", choose)
        .with_panel(number("Requests", "reqps", asked, span=HALF // 2))
        .with_panel(
            number(
                "Of all requests",
                "percentunit",
                f"{asked} / sum(rate(pareto_requests_total{RATE}))",
                span=HALF // 2,
            )
        )
        .with_panel(
            number(
                "Answered",
                "percentunit",
                f'sum(rate(pareto_requests_total{{tenant="$tenant", outcome=~"served|served_late"}}{RATE})) / {asked}',
                span=HALF // 2,
            )
        )
        .with_panel(
            number(
                "Over its quota",
                "percentunit",
                f'(sum(rate(pareto_requests_total{{tenant="$tenant", reason="quota"}}{RATE})) or vector(0)) / {asked}',
                "429 because of `rate`, `burst` or `concurrency`: docs/tenants.md.",
                span=HALF // 2,
            )
        )
        .with_panel(
            graph(
                "Requests by model",
                "reqps",
                (f"sum by (model) (rate(pareto_requests_total{OF}{RATE}))", "{{model}}"),
                stacked=True,
            )
        )
        .with_panel(
            graph(
                "Requests by outcome",
                "reqps",
                (f"sum by (outcome) (rate(pareto_requests_total{OF}{RATE}))", "{{outcome}}"),
                stacked=True,
            )
        )
        .with_panel(
            graph(
                "Who answers",
                "reqps",
                (
                    f'sum by (model, variant) (rate(pareto_requests_total{{tenant="$tenant", variant!=""}}{RATE}))',
                    "{{model}}/{{variant}}",
                ),
                stacked=True,
            )
        )
        .with_panel(
            graph(
                "Agreement of its answers with the best variant's",
                "percentunit",
                (f"max by (model) (pareto_served_agreement_ratio{OF})", "{{model}}"),
                about="By audits: docs/quality.md.",
                most=1.0,
            )
        )
    )
