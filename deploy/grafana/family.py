"""One family: who answers, why, how fast, whether the answers still are what was measured, and trials of revisions."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from deploy.grafana.panels import HALF, THIRD, board, choice, graph, quantiles

OF = '{model="$model"}'
RATE = "[$__rate_interval]"


def family() -> dashboard.Dashboard:
    """The variants of a family side by side."""
    choose = choice("model", "Model", "label_values(pareto_variant_quality_ratio, model)")
    shown = board("pareto-family", "Pareto Gateway: family", "Who answers, why, how fast and how well?", choose)
    _answers(shown)
    _times(shown)
    _quality(shown)
    _trial(shown)
    return shown


def _answers(shown: dashboard.Dashboard) -> None:
    answered = f"rate(pareto_request_latency_seconds_count{OF}{RATE})"
    shown.with_panel(
        graph(
            "Answers by variant", "reqps", (f"sum by (variant) ({answered})", "{{variant}}"), span=THIRD, stacked=True
        )
    ).with_panel(
        graph(
            "Why",
            "reqps",
            (f"sum by (reason) (rate(pareto_requests_total{OF}{RATE}))", "{{reason}}"),
            about="Why the variant that answered was chosen, or why there was no answer: docs/reasons.md.",
            span=THIRD,
            stacked=True,
        )
    ).with_panel(
        graph(
            "In time, and answered how well",
            "percentunit",
            (f"pareto:slo_attainment:ratio_rate5m{OF}", "in time"),
            (f"pareto:served_quality:mean_rate5m{OF}", "accuracy"),
            about="Over five minutes.",
            most=1.0,
            span=THIRD,
        )
    ).with_panel(
        graph(
            "Escalations",
            "percentunit",
            (f"pareto:escalations:share_rate5m{OF}", "{{escalation}}"),
            about="Of the answered requests: was a better variant asked as well, and if not, why?",
            span=HALF,
            most=1.0,
            stacked=True,
        )
    ).with_panel(
        graph(
            "Rows answered again by a better variant",
            "rowsps",
            (
                f"sum by (from_variant, to_variant) (rate(pareto_escalated_rows_total{OF}{RATE}))",
                "{{from_variant}} to {{to_variant}}",
            ),
        )
    )


def _times(shown: dashboard.Dashboard) -> None:
    def mean(histogram: str) -> str:
        total, count = (f"sum by (variant) (rate({histogram}_{part}{OF}{RATE}))" for part in ("sum", "count"))
        return f"{total} / {count}"

    shown.with_panel(graph("Latency", "s", *quantiles("pareto_request_latency_seconds", OF), span=THIRD)).with_panel(
        graph(
            "Latency over SLO",
            "percentunit",
            *quantiles("pareto_request_latency_slo_ratio", OF),
            about="Above 1 is late.",
            span=THIRD,
        )
    ).with_panel(
        graph(
            "Waiting and computing",
            "s",
            (mean("pareto_request_queue_seconds"), "{{variant}} waits"),
            (mean("pareto_request_compute_seconds"), "{{variant}} computes"),
            span=THIRD,
        )
    ).with_panel(graph("Rows in a batch", "none", (mean("pareto_batch_rows"), "{{variant}}"), span=THIRD)).with_panel(
        graph(
            "Planned over taken",
            "percentunit",
            (mean("pareto_batch_predicted_ratio"), "{{variant}}"),
            about="Seconds of batches; below 1 plans are too short.",
            span=THIRD,
        )
    ).with_panel(
        graph(
            "Taken over profiled",
            "percentunit",
            (f"max by (variant) (pareto_latency_correction_ratio{OF})", "{{variant}}"),
            about="As learnt while serving; far from 1, profile again.",
            span=THIRD,
        )
    )


def _quality(shown: dashboard.Dashboard) -> None:
    shown.with_panel(
        graph(
            "Agreement with the best variant",
            "percentunit",
            (f"max by (variant) (pareto_agreement_ratio{OF})", "{{variant}}"),
            (f"max by (variant) (pareto_agreement_expected_ratio{OF})", "{{variant}} when it was built"),
            about="First answers, by audits: docs/quality.md.",
            most=1.0,
            span=THIRD,
        )
    ).with_panel(
        graph(
            "Accuracy by feedback",
            "percentunit",
            (f"max by (variant) (pareto_feedback_accuracy_ratio{OF})", "{{variant}}"),
            (f"max by (variant) (pareto_variant_quality_ratio{OF})", "{{variant}} as measured"),
            (f"min by (variant) (pareto_variant_believed_quality_ratio{OF})", "{{variant}} as believed"),
            about="Believed to be less than measured: correct_quality has found a drift, docs/quality.md.",
            most=1.0,
            span=THIRD,
        )
    ).with_panel(
        graph(
            "Audits and feedback",
            "ops",
            (f"sum by (outcome) (rate(pareto_audits_total{OF}{RATE}))", "audits {{outcome}}"),
            (f"sum(rate(pareto_feedback_rows_total{OF}{RATE}))", "rows judged"),
            span=THIRD,
        )
    ).with_panel(
        graph(
            "Errors over several windows",
            "percentunit",
            (f"slo:sli_error:ratio_rate5m{OF}", "5 minutes"),
            (f"slo:sli_error:ratio_rate1h{OF}", "1 hour"),
            (f"slo:sli_error:ratio_rate6h{OF}", "6 hours"),
            (f"slo:error_budget:ratio{OF}", "the budget"),
            about="Share of the requests with an SLO that were not answered in time.",
            span=HALF,
        )
    ).with_panel(
        graph(
            "Batches that failed",
            "ops",
            (f"sum by (variant) (rate(pareto_failed_batches_total{OF}{RATE}))", "{{variant}}"),
            span=HALF,
        )
    ).with_panel(
        graph(
            "Variants in quarantine",
            "none",
            (f"sum by (variant) (pareto_variant_quarantined{OF})", "{{variant}}"),
            about="Replicas in which a variant answers nobody, because it broke and has to be tried again first: "
            "docs/isolation.md.",
            span=HALF,
        )
    ).with_panel(
        graph(
            "How variants broke",
            "ops",
            (f"sum by (variant, reason) (rate(pareto_variant_faults_total{OF}{RATE}))", "{{variant}}: {{reason}}"),
            (f"sum(rate(pareto_retried_requests_total{OF}{RATE}))", "requests that another variant answered"),
            span=HALF,
        )
    )


def _trial(shown: dashboard.Dashboard) -> None:
    shown.with_panel(
        graph(
            "Trial of another revision",
            "none",
            (f"sum by (state) (pareto_canary_state{OF}) > 0", "{{state}}"),
            (f"max(pareto_canary_share_ratio{OF})", "share of the callers"),
            about="The last one: replicas by how it stands there, and who takes part. Canaries: docs/quality.md.",
            span=HALF,
        )
    ).with_panel(
        graph(
            "What the trial compares",
            "ops",
            (f"sum by (outcome) (rate(pareto_canary_comparisons_total{OF}{RATE}))", "{{outcome}}"),
            (f"sum(rate(pareto_canary_answers_total{OF}{RATE}))", "answers of the new revision"),
            (f"sum(rate(pareto_canary_fallbacks_total{OF}{RATE}))", "left to the old revision"),
            span=HALF,
        )
    )
