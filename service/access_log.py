"""The access log: a line for some of the requests that have ended, with what their records say.

An observer: lines are written by a thread, after the answers. Where the log is read too slowly, lines are lost, and no
time.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from queue import Full, Queue

from router.contract import BatchRecord, Record
from router.request import NEVER
from router.sampling import fraction
from router.words import Outcome
from service.oip.errors import status_of
from service.origins import PURPOSE
from service.settings import Settings

logger = logging.getLogger("pareto.access")

UNANSWERED_PER_S = 10
"""So many requests a second that were refused or failed are logged whatever the share."""
MOST_WAITING = 1000
"""Lines that wait to be written; more are lost, and counted."""
END_S = 1.0
"""For so long a replica that ends waits for the last lines."""

_ANSWERED = (Outcome.SERVED, Outcome.SERVED_LATE)

Fields = dict[str, str | float | bool]


class AccessLog:
    """Observes records and logs `access_log_share` of them, drawn by their ids. `label` is the tenant to be shown."""

    def __init__(self, settings: Callable[[], Settings], label: Callable[[str], str]) -> None:
        self._settings = settings
        self._label = label
        self._lines: Queue[tuple[str, Fields] | None] = Queue(MOST_WAITING)
        self._writer: threading.Thread | None = None
        self._second = 0
        self._unanswered = 0
        self._unlogged = 0

    def observe(self, records: Sequence[Record], batches: Sequence[BatchRecord]) -> None:
        """See `service.observers.Observer`."""
        share = self._settings().access_log_share
        if not share:
            return
        for record in records:
            if record.audit:
                continue
            origin = record.origin
            # BentoML's own API names no requests.
            name = origin.name or str(record.request_id)
            draw = origin.draw if origin.name else fraction(name, PURPOSE)
            if draw < share or (self._failed(record) and self._may(record)):
                self._log(record, name)

    def close(self) -> None:
        """Write what waits, for `END_S` at most; any thread may call it."""
        writer, self._writer = self._writer, None
        if writer is not None:
            try:
                self._lines.put(None, timeout=END_S)
            except Full:
                return
            writer.join(END_S)

    def _failed(self, record: Record) -> bool:
        return record.outcome not in _ANSWERED and record.outcome is not Outcome.CANCELLED

    def _may(self, record: Record) -> bool:
        """Whether one more of this second's refused and failed requests is logged."""
        second = int(record.finished_s)
        if second != self._second:
            self._second, self._unanswered = second, 0
        self._unanswered += 1
        if self._unanswered <= UNANSWERED_PER_S:
            return True
        self._unlogged += 1
        return False

    def _log(self, record: Record, name: str) -> None:
        fields = fields_of(record, name, self._label(record.tenant))
        if self._unlogged:
            fields["unlogged"] = self._unlogged
        answerer = f"{record.family}/{record.variant}" if record.variant else record.family
        ended = f"{record.outcome.value} ({record.reason.value}) after {1e3 * record.total_s:.1f} ms"
        if self._writer is None:
            # It has a setting of its own, and so is not a matter of the level.
            logger.setLevel(logging.INFO)
            self._writer = threading.Thread(target=self._write, name="access-log", daemon=True)
            self._writer.start()
        try:
            self._lines.put_nowait((f"{name}: {answerer} {ended}", fields))
        except Full:
            self._unlogged += 1
        else:
            self._unlogged = 0

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            message, fields = line
            logger.info(message, extra=fields)


def fields_of(record: Record, name: str, tenant: str) -> Fields:
    """What a line has in JSON; neither inputs nor answers are among it. Times in milliseconds."""
    fields: Fields = {
        "request_id": name,
        "model": record.family,
        "revision": record.revision,
        "variant": record.variant,
        "route_path": ",".join(record.path),
        "outcome": record.outcome.value,
        "reason": record.reason.value,
        "escalation": record.escalation.value,
        "status": status_of(record),
        "rows": record.rows,
        "tenant": tenant,
        "service_class": record.service_class,
        "slo_met": record.slo_met,
        "total_ms": round(1e3 * record.total_s, 3),
        "queue_ms": round(1e3 * record.queue_s, 3),
        "compute_ms": round(1e3 * record.compute_s, 3),
    }
    if record.slo_s != NEVER:
        fields["slo_ms"] = round(1e3 * record.slo_s, 3)
    if record.cold:
        fields["cold"] = True
    if record.origin.trace:
        fields["trace_id"] = record.origin.trace
    if record.origin.span:
        fields["span_id"] = record.origin.span
    return fields
