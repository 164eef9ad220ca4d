"""What a request asks for besides its tensors: SLO, timeout, floor, priority, tenant, class, when late.

No standard exists for most of it, so several sources are read and the tightest wins: the shortest SLO and timeout, the
highest floor, the most urgent priority, `shed` before `serve`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from router.request import NEVER
from router.words import WhenLate
from service.oip.errors import Within, malformed, shown
from service.oip.headers import BATCH_CLASS, FLOOR_HEADER, LEAST, WHEN_LATE, RequestHeaders, tighter

FLOOR_BY_SETTINGS = "min_accuracy in the settings"
_FLOOR_BY_HEADER = f"header {FLOOR_HEADER.decode()}"
_FLOOR_BY_PARAMETER = "parameters.min_accuracy"
_MAX_PRIORITY = 2**63 - 1


class TermDefaults(NamedTuple):
    """What holds for a family where the request says nothing. Seconds; `slo_s` `None` means no SLO."""

    slo_s: float | None = None
    timeout_s: float = NEVER
    when_late: WhenLate = WhenLate.SHED
    tenant: str = "default-flow"
    service_class: str = "default"
    min_accuracy: float = 0.0


class Terms(NamedTuple):
    """The terms of one request. Seconds from receipt; `slo_s` `None` means no SLO, `timeout_s` may be `NEVER`.

    `min_accuracy` is a fraction in [0, 1], and `floor_by` says who set it, as errors name it. `priority` is Triton's:
    lower is more urgent, 0 means the default level.
    """

    slo_s: float | None
    timeout_s: float
    min_accuracy: float
    priority: int
    when_late: WhenLate
    tenant: str
    service_class: str
    session: str = ""
    floor_by: str = FLOOR_BY_SETTINGS

    @property
    def within(self) -> Within:
        """What the answer is wanted within: a timeout that ends before the SLO takes its place."""
        if self.slo_s is None or self.timeout_s < self.slo_s:
            return Within(self.timeout_s, "timeout")
        return Within(self.slo_s)


def read_terms(headers: RequestHeaders, parameters: Mapping[str, Any], defaults: TermDefaults) -> Terms:
    """Join what headers and request parameters say with the defaults.

    A timeout can only shorten the default one. The class `batch` has no SLO unless the request states one. Raises
    `ProtocolError` 400 that names the parameter.
    """
    slo_s, timeout_s, min_accuracy, when_late = (
        headers.slo_s,
        headers.timeout_s,
        headers.min_accuracy,
        headers.when_late,
    )
    priority, floor_by = 0, _FLOOR_BY_HEADER
    if parameters:
        if "slo_ms" in parameters:
            slo_s = min(slo_s, _milliseconds("slo_ms", parameters["slo_ms"]))
        if "timeout" in parameters:
            timeout_s = min(timeout_s, _integer("timeout", parameters["timeout"], 1) / 1e6)
        if "min_accuracy" in parameters:
            floor = _fraction("min_accuracy", parameters["min_accuracy"])
            if floor > min_accuracy:
                min_accuracy, floor_by = floor, _FLOOR_BY_PARAMETER
        if "when_late" in parameters:
            when_late = tighter(when_late, _when_late(parameters["when_late"]))
        if "priority" in parameters:
            priority = _integer("priority", parameters["priority"], 0)
    service_class = headers.service_class or defaults.service_class
    slo: float | None = slo_s
    if slo_s == NEVER:
        slo = None if service_class == BATCH_CLASS else defaults.slo_s
    return Terms(
        slo,
        min(timeout_s, defaults.timeout_s),
        max(min_accuracy, defaults.min_accuracy),
        priority,
        when_late or defaults.when_late,
        headers.tenant or defaults.tenant,
        service_class,
        headers.session,
        floor_by if min_accuracy > defaults.min_accuracy else FLOOR_BY_SETTINGS,
    )


def _milliseconds(name: str, value: Any) -> float:
    if type(value) not in (int, float) or not LEAST <= value < math.inf:
        raise malformed(f"parameters.{name}", "a positive number of milliseconds", shown(value))
    return float(value) / 1e3


def _integer(name: str, value: Any, least: int) -> int:
    if type(value) is not int or not least <= value <= _MAX_PRIORITY:
        what = "a positive number of microseconds, an integer" if name == "timeout" else "an integer of at least 0"
        raise malformed(f"parameters.{name}", what, shown(value))
    return value


def _fraction(name: str, value: Any) -> float:
    if type(value) not in (int, float) or not LEAST <= value <= 1:
        raise malformed(f"parameters.{name}", "a fraction above 0 and at most 1", shown(value))
    return float(value)


def _when_late(value: Any) -> WhenLate:
    word = WHEN_LATE.get(value) if type(value) is str else None
    if word is None:
        raise malformed("parameters.when_late", "'shed' or 'serve'", shown(value))
    return word
