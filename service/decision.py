"""What an answer says of the decision behind it: as parameters in its body, and as headers or metadata beside it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from router.contract import Record, Slot
from router.words import Escalation, Reason
from service.exchange import RawHeaders

_ONE = ("", Slot(0).device)
"""The device of slots that are all alike is not spoken of."""


def decision(record: Record) -> Mapping[str, str | float | bool]:
    """The parameters of an answer."""
    said: dict[str, str | float | bool] = {
        "variant": record.variant,
        "route_reason": record.reason,
        "slo_met": record.slo_met,
        "route_path": ",".join(record.path),
        "escalation": record.escalation,
    }
    if record.escalation is not Escalation.NONE:
        said["first_confidence"] = record.confidence
    if record.device not in _ONE:
        said["device"] = record.device
    if record.variant == "mixed":
        said["row_variants"] = ",".join(record.row_variants)
    return said


def decision_headers(record: Record) -> RawHeaders:
    """The headers of an answer."""
    total_s = record.finished_s - record.arrival_s
    timing = b"queue;dur=%.3f, compute;dur=%.3f, total;dur=%.3f"
    said = [
        *_choice_headers(record.variant, record.reason, record.slo_met, record.path, record.escalation),
        (b"server-timing", timing % (record.queue_s * 1e3, record.compute_s * 1e3, total_s * 1e3)),
    ]
    if record.cold:
        said.append((b"x-cold", b"true"))
    if record.device not in _ONE:
        said.append((b"x-device", record.device.encode()))
    if record.escalation is not Escalation.NONE:
        said.append((b"x-first-confidence", b"%.4f" % record.confidence))
    return said


@lru_cache(maxsize=4096)
def _choice_headers(
    variant: str, reason: Reason, slo_met: bool, path: tuple[str, ...], escalation: Escalation
) -> tuple[tuple[bytes, bytes], ...]:
    """The same few for every request: kept, because making them costs more than finding them."""
    return (
        (b"x-variant", variant.encode()),
        (b"x-route-reason", reason.encode()),
        (b"x-slo-met", b"true" if slo_met else b"false"),
        (b"x-route-path", ",".join(path).encode()),
        (b"x-escalation", escalation.encode()),
    )
