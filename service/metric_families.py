"""Metric families of the client library, made of one value or of sums."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric

from service.sums import Sums


def histogram(name: str, text: str, labels: tuple[str, ...], series: Iterable[tuple[Any, Sums]]) -> Metric:
    """A histogram with a series for each of these values of the labels."""
    family = HistogramMetricFamily(name, text, labels=labels)
    for key, sums in series:
        family.add_metric(key, sums.buckets(), sums.total)
    return family


def gauge(name: str, text: str, value: float) -> Metric:
    """A gauge without labels."""
    return GaugeMetricFamily(name, text, value=value)
