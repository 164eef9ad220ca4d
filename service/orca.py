"""ORCA load reports: what a load balancer in front reads from an answer's headers to weigh replicas.

A request asks with `endpoint-load-metrics-format`, the answer's `endpoint-load-metrics` tells. Forms and field names
are those of Open Request Cost Aggregation, as Envoy's `source/common/orca/orca_parser` reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

REPORT_HEADER = b"endpoint-load-metrics"


def load_report(load_format: str, busy_slots: int, slots: int, queued_rows: int) -> bytes:
    """The value of `endpoint-load-metrics` in the format `json` or `text`.

    `application_utilization` is the share of the executor slots that run a batch, in [0, 1]. Raises `ValueError` for
    another format and where there are no slots.
    """
    form = _FORMS.get(load_format)
    if form is None:
        raise ValueError(f"load format: expected {' or '.join(_FORMS)}, got {load_format!r}")
    if slots < 1:
        raise ValueError(f"slots: expected at least 1, got {slots}")
    return form(round(busy_slots / slots, 4), {"queued_rows": queued_rows, "busy_slots": busy_slots})


def _json(utilization: float, named: Mapping[str, int]) -> bytes:
    report: dict[str, Any] = {"application_utilization": utilization, "named_metrics": named}
    return b"JSON " + orjson.dumps(report)


def _text(utilization: float, named: Mapping[str, int]) -> bytes:
    pairs = {"application_utilization": utilization} | {f"named_metrics.{name}": count for name, count in named.items()}
    return f"TEXT {', '.join(f'{name}={value}' for name, value in pairs.items())}".encode()


_FORMS: Mapping[str, Callable[[float, Mapping[str, int]], bytes]] = {"json": _json, "text": _text}
