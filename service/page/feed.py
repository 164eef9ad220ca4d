"""What the page is told: an observer of records, and the messages made of what it has counted.

It stands beside the request path: records come after their answers have left, and counting one takes a microsecond or
two. Nothing runs by itself: the second that a record falls in ends the one before, and messages are made when asked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

import psutil

from router.contract import BatchRecord, Record
from service import __version__
from service.loaded_family import LoadedFamily, cannot_be_loaded
from service.page.expectation import Expectation
from service.page.messages import (
    Message,
    broken_line,
    decision_line,
    family_card,
    second_line,
    share_line,
    trial_line,
    window_lines,
)
from service.page.tally import HISTORY_S, WINDOW_S, History
from service.page.words import CHOSEN, ESCALATIONS, REFUSED

if TYPE_CHECKING:
    from service.gateway import Gateway

CATCH_UP_S = 5
"""Seconds of the time series in every message: a tab that missed a few ticks has no gaps."""
NEWEST = 8
"""Decisions in every message."""


class Load(NamedTuple):
    """How busy the replica was in one second: most rows that waited, and the share of the slots' time that ran."""

    at: int
    queued: int
    busy: float


class Feed:
    """Observes records and batches; tells what came of them, whole or since just now."""

    def __init__(self, gateway: Gateway, clock: Callable[[], float] = monotonic) -> None:
        self._gateway = gateway
        self._clock = clock
        self._process = psutil.Process()
        self._histories: dict[str, History] = {}
        self._loads: deque[Load] = deque(maxlen=HISTORY_S)
        self._at = 0
        self._queued = 0
        self._busy_s = 0.0

    def observe(self, records: Sequence[Record], batches: Sequence[BatchRecord]) -> None:
        """See `service.observers.Observer`."""
        at = int(self._clock())
        if at != self._at:
            self._roll(at)
        scheduler = self._gateway.scheduler
        if scheduler is not None and scheduler.queued_rows > self._queued:
            self._queued = scheduler.queued_rows
        for batch in batches:
            self._busy_s += batch.finished_s - batch.dispatch.started_s
        for record in records:
            if record.audit:
                continue
            history = self._histories.get(record.family)
            if history is None or history.revision != record.revision:
                history = self._history(record.family)
                if history is None:
                    continue
            history.add(record, at)

    def welcome(self, wanted: str | None) -> Message:
        """Everything that a page needs to begin with, and the family that it is about: the wanted one, if served."""
        gateway, at = self._gateway, self._now()
        name = self.chosen(wanted)
        families = [family_card(loaded) for loaded in gateway.families.values()]
        said: Message = {
            "version": __version__,
            "phase": gateway.phase.value,
            "policy": gateway.settings.policy,
            "slots": gateway.settings.slot_count,
            "comparison": gateway.settings.comparison is not None,
            "history_s": HISTORY_S,
            "window_s": WINDOW_S,
            "now": at,
            "families": families,
            "problems": [cannot_be_loaded(problem) for problem in gateway.problems],
            "words": {"chosen": dict(CHOSEN), "refused": dict(REFUSED), "escalations": dict(ESCALATIONS)},
            "load": [_load_line(load) for load in self._loads],
            "family": None,
        }
        if name is not None:
            history = self._histories.get(name)
            said["family"] = self._family_page(gateway.families[name])
            said["seconds"] = [second_line(second) for second in history.seconds] if history else []
            said["decisions"] = [decision_line(decision) for decision in history.decisions] if history else []
        return said

    def tick(self, family: str | None) -> Message:
        """What has changed: for every tab that looks at that family the same."""
        gateway, at = self._gateway, self._now()
        scheduler = gateway.scheduler
        said: Message = {
            "phase": gateway.phase.value,
            "now": at,
            "queued": scheduler.queued_rows if scheduler else 0,
            "unfinished": scheduler.unfinished if scheduler else 0,
            "busy": scheduler.busy_slots if scheduler else 0,
            "memory_bytes": self._process.memory_info().rss,
            "refused_early": gateway.metrics.protocol_errors,
            "load": [_load_line(load) for load in self._loads if load.at >= at - CATCH_UP_S],
            "families": {
                name: share_line(recent) for name, history in self._histories.items() if (recent := history.recent(at))
            },
        }
        history = self._histories.get(family) if family else None
        if family is None or family not in gateway.families:
            return said
        said["latency_ms"] = self._latencies_ms(family)
        hints = gateway.outer_loop.hints if gateway.outer_loop is not None else None
        said["trial"] = trial_line(gateway.canaries.reports.get(family), self._clock())
        said["broken"] = "" if scheduler is None else broken_line(scheduler.quarantined(family))
        said["caution"] = None if hints is None else hints.caution.get(family, 1.0)
        if history is not None:
            window = history.window(at)
            said["total"] = history.total
            said["recent"] = window_lines(window)
            said["seconds"] = [second_line(second) for second in history.recent(at) if second.at >= at - CATCH_UP_S]
            said["decisions"] = [decision_line(decision) for decision in list(history.decisions)[-NEWEST:]]
        return said

    def chosen(self, wanted: str | None) -> str | None:
        """The family that a page is about: the wanted one if it is served, else the busiest, else the first."""
        families = self._gateway.families
        if wanted in families:
            return wanted
        return max(
            families, key=lambda name: self._histories[name].total if name in self._histories else 0, default=None
        )

    def edition(self) -> tuple[object, ...]:
        """Differs where a page has to begin anew: another phase, other families, revisions, variants or beliefs."""
        families = self._gateway.families.values()
        correction = self._gateway.correction
        changes = correction.changes if correction is not None else 0
        return self._gateway.phase, changes, *((one.name, one.family.revision, len(one.paths)) for one in families)

    def _history(self, name: str) -> History | None:
        """That of a family that is served, with what is known of its revision; None for another one."""
        loaded = self._gateway.families.get(name)
        if loaded is None:
            return None
        history = self._histories.get(name)
        if history is None:
            history = self._histories[name] = History(Expectation(loaded.family), loaded.family.revision)
        elif history.revision != loaded.family.revision:
            history.expectation, history.revision = Expectation(loaded.family), loaded.family.revision
        return history

    def _now(self) -> int:
        """The second that runs; what happened before it is counted as past."""
        at = int(self._clock())
        if at != self._at:
            self._roll(at)
        for history in self._histories.values():
            history.roll(at)
        return at

    def _roll(self, at: int) -> None:
        slots = self._gateway.settings.slot_count
        if self._at and (self._queued or self._busy_s):
            self._loads.append(Load(self._at, self._queued, min(1.0, self._busy_s / slots)))
        self._at, self._queued, self._busy_s = at, 0, 0.0

    def _family_page(self, loaded: LoadedFamily) -> Message:
        family, manifest = loaded.family, loaded.manifest
        (tensor,) = manifest.inputs
        latencies = self._latencies_ms(loaded.name)
        scheduler = self._gateway.scheduler
        believed = family if scheduler is None else scheduler.families.get(loaded.name, family)
        return {
            "name": loaded.name,
            "revision": family.revision,
            "samples": self._gateway.settings.page_samples,
            "description": manifest.description,
            "labels": manifest.labels[:100],
            "input": {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape},
            "slo_ms": 1e3 * (self._gateway.defaults(loaded.name).slo_s or manifest.default_slo_s),
            "cascades": family.evidence is not None,
            "variants": [
                {
                    "name": variant.name,
                    "quality": variant.quality,
                    "believed": believed.variants[index].quality,
                    "latency_ms": latencies[variant.name],
                    "memory_bytes": variant.memory_bytes,
                    "on_ladder": index in believed.rungs,
                }
                for index, variant in enumerate(family.variants)
            ],
            "not_loaded": [v.name for v in manifest.variants if v.name not in loaded.paths],
            "refused": dict(loaded.refused),
        }

    def _latencies_ms(self, name: str) -> dict[str, float]:
        """Milliseconds of one row of the middle size class, as profiled and corrected by what is observed."""
        family = self._gateway.families[name].family
        scheduler = self._gateway.scheduler
        model = scheduler.latency(name) if scheduler and name in scheduler.families else None
        middle = len(family.sizes) // 2
        return {
            variant.name: round(
                1e3 * variant.latency.median_s[middle][0] * (model.correction(index) if model else 1.0), 4
            )
            for index, variant in enumerate(family.variants)
        }


def _load_line(load: Load) -> list[float]:
    return [load.at, load.queued, round(load.busy, 3)]
