"""Trials of new revisions as metric families; label values are models and closed sets of words."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from service.canaries import Canaries
from service.canary_trial import State


def collect_canaries(canaries: Canaries) -> Iterator[Metric]:
    """The last trial of each model that had one; counters begin anew with each trial."""
    reports = list(canaries.reports.values())
    if not reports:
        return
    state = GaugeMetricFamily(
        "pareto_canary_state", "1 for the state of the model's last trial, 0 for the others.", labels=("model", "state")
    )
    share = GaugeMetricFamily(
        "pareto_canary_share_ratio", "Share of the callers that a trial draws; 0 once it has ended.", labels=("model",)
    )
    answers = CounterMetricFamily(
        "pareto_canary_answers", "Requests that the revision on trial answered; of a shadow, copies.", labels=("model",)
    )
    compared = CounterMetricFamily(
        "pareto_canary_comparisons",
        "Answers of both revisions to one row, as far as there was spare time.",
        labels=("model", "outcome"),
    )
    fallbacks = CounterMetricFamily(
        "pareto_canary_fallbacks",
        "Requests that the old revision answered because the one on trial failed on them or refused them.",
        labels=("model",),
    )
    for report in reports:
        for one in State:
            state.add_metric((report.model, one.value), float(report.state is one))
        share.add_metric((report.model,), report.rules.share if report.ended_s is None else 0.0)
        answers.add_metric((report.model,), report.answers)
        compared.add_metric((report.model, "agreed"), report.agreed)
        compared.add_metric((report.model, "disagreed"), report.disagreed)
        compared.add_metric((report.model, "skipped"), report.skipped)
        fallbacks.add_metric((report.model,), report.fallbacks)
    yield from (state, share, answers, compared, fallbacks)
