"""How evenly families fare: the share of each one's requests that met its SLO lately, the least, Jain's index."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric

from router.agreement import Share
from router.contract import Record
from router.fairness import jain
from router.request import NEVER
from router.words import Outcome

WINDOW_S = 60.0
"""A request counts for about so long."""
FORGOTTEN = 0.01
"""Requests, as far as they still count, below which a family is as if nobody asked for it."""


class Evenness:
    """Adds up records; families are those that records name, which are those that are served."""

    def __init__(self) -> None:
        self._families: dict[str, Share] = {}
        self._now = 0.0

    def add(self, record: Record) -> None:
        """Count a request with an SLO; who hung up was not served badly."""
        if record.slo_s == NEVER or record.outcome is Outcome.CANCELLED:
            return
        now = self._now = max(self._now, record.finished_s)
        share = self._families.get(record.family)
        if share is None:
            share = self._families[record.family] = Share(WINDOW_S)
        share.add(int(record.slo_met), 1, now)

    def attainment(self) -> dict[str, float]:
        """By family, the share of its requests that met their SLO lately; those alone that somebody asked for."""
        shares = {}
        for name, share in list(self._families.items()):
            met, judged = share.at(self._now)
            if judged > FORGOTTEN:
                shares[name] = min(1.0, met / judged)
        return shares

    def collect(self) -> Iterator[Metric]:
        """The gauges, from the moment on when there is something to say."""
        attainment = self.attainment()
        if not attainment:
            return
        by_family = GaugeMetricFamily(
            "pareto_attainment_ratio",
            "Share of a family's requests that met their SLO in the last minute.",
            labels=("model",),
        )
        for name, share in attainment.items():
            by_family.add_metric((name,), share)
        yield by_family
        yield GaugeMetricFamily(
            "pareto_attainment_least_ratio", "The least of the families' attainments.", value=min(attainment.values())
        )
        yield GaugeMetricFamily(
            "pareto_attainment_jain_ratio",
            "Jain's fairness index of the families' attainments; 1 where all fare alike.",
            value=jain(list(attainment.values())),
        )
