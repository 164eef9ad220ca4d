"""Live quality and feedback as metric families; label values are what is loaded and what is configured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from time import monotonic

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from router.agreement import Reading
from service.feedback import Feedback
from service.live_quality import LiveQuality

PAIR = ("model", "variant")


def collect_quality(quality: LiveQuality, feedback: Feedback) -> Iterator[Metric]:
    """What audits and feedback have found, as it stands now."""
    now = monotonic()
    audits = CounterMetricFamily(
        "pareto_audits", "Answers drawn to be compared with the best variant's.", labels=("model", "outcome")
    )
    for outcome, counts in (("compared", quality.compared), ("skipped", quality.skipped)):
        for family, count in list(counts.items()):
            audits.add_metric((family, outcome), count)
    yield audits
    variants = list(quality.variants(now))
    readings = [((family, variant), reading) for family, variant, reading in variants]
    yield from _shares("pareto_agreement", "First answers that agree with the best variant's", PAIR, readings)
    expected = GaugeMetricFamily("pareto_agreement_expected_ratio", "Agreement measured at the build.", labels=PAIR)
    drift = GaugeMetricFamily(
        "pareto_agreement_drift", "1 while agreement is off what was expected, by a margin and for long.", labels=PAIR
    )
    for key, reading in readings:
        if reading.expected is not None:
            expected.add_metric(key, reading.expected)
            drift.add_metric(key, float(reading.drifts))
    yield from (expected, drift)
    served = (((family, tenant), reading) for family, tenant, reading in quality.tenants(now))
    yield from _shares(
        "pareto_served_agreement", "Answers given that agree with the best variant's", ("model", "tenant"), served
    )
    yield from _feedback(feedback, now)


def _feedback(feedback: Feedback, now: float) -> Iterator[Metric]:
    rows = CounterMetricFamily("pareto_feedback_rows", "Answered rows whose true label was told.", labels=PAIR)
    correct = CounterMetricFamily("pareto_feedback_correct", "Those of them that were answered so.", labels=PAIR)
    readings = []
    for family, variant, counts in feedback.counts():
        rows.add_metric((family, variant), counts.rows)
        correct.add_metric((family, variant), counts.correct)
        readings.append(((family, variant), counts.share.reading(now)))
    yield from (rows, correct)
    yield from _shares("pareto_feedback_accuracy", "Answered rows that were right as told", PAIR, readings)
    unknown = CounterMetricFamily(
        "pareto_feedback_unknown", "Told ids that meant no answer: unknown, expired or told before.", labels=("model",)
    )
    for family, count in list(feedback.unknown.items()):
        unknown.add_metric((family,), count)
    yield unknown
    yield GaugeMetricFamily("pareto_feedback_answers", "Answers that can still be judged.", value=feedback.remembered)


def _shares(
    name: str, text: str, labels: tuple[str, str], readings: Iterable[tuple[tuple[str, str], Reading]]
) -> Iterator[Metric]:
    """A share of late, the interval around it, and how many count."""
    share = GaugeMetricFamily(f"{name}_ratio", f"{text}, share of late.", labels=labels)
    low = GaugeMetricFamily(f"{name}_low_ratio", f"{text}, lower end of the 99 % interval.", labels=labels)
    high = GaugeMetricFamily(f"{name}_high_ratio", f"{text}, upper end of the 99 % interval.", labels=labels)
    trials = GaugeMetricFamily(f"{name}_samples", f"{text}, samples that the share counts for.", labels=labels)
    for key, reading in readings:
        share.add_metric(key, reading.share)
        low.add_metric(key, reading.low)
        high.add_metric(key, reading.high)
        trials.add_metric(key, reading.trials)
    yield from (share, low, high, trials)
