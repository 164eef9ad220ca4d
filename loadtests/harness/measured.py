"""One run, judged: scores as a whole, by family and by tenant, and what happened when."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtests.generator_faults import generator_faults
from loadtests.harness.conductor import Ran
from loadtests.harness.histogram import Histogram
from loadtests.harness.subject import Subject
from loadtests.harness.uncertainty import Interval, less_sure, share_interval, share_of_rows
from loadtests.harness.verdict import percent
from loadtests.outcomes import Fate
from loadtests.report import score_json
from loadtests.scoring import Score, correct_in_time, in_time, score, turned_late

MOST_BINS, BIN_REQUESTS, LEAST_BIN_S = 120, 20, 0.1
"""Time is cut into so many bins at most, so long at least, with so many requests each on average."""
MOST_BLOCKS, BLOCK_REQUESTS = 20, 25
"""For uncertainty, runs are cut into so many blocks at most, with so many requests each on average at least."""
_SHOWN_PERCENTS = (50.0, 90.0, 99.0)


@dataclass(frozen=True)
class Run:
    """What was sent under one label, and what became of it. `rate` is what was asked for, None for a recording."""

    label: str
    subject: Subject
    ran: Ran
    seed: int
    rate: float | None

    @cached_property
    def score(self) -> Score:
        """All requests."""
        return self._scored(np.ones(len(self.ran.plan), dtype=np.bool_))

    def faults(self, attainment: float) -> tuple[str, ...]:
        """Why this is not a measurement of the gateway, where that share is to be answered in time."""
        return (*self.score.faults, *self._decisive_lag(attainment))

    def generator_faults(self, attainment: float) -> tuple[str, ...]:
        """The same, but for requests that a stalled gateway left no room for."""
        return (*generator_faults(self.ran.results, self.ran.sending), *self._decisive_lag(attainment))

    @cached_property
    def families(self) -> Mapping[str, Score]:
        """By family, where requests were sent to it."""
        return {
            member.served.family: self._scored(self.ran.plan.way == place)
            for place, member in enumerate(self.subject.members)
            if (self.ran.plan.way == place).any()
        }

    @cached_property
    def tenants(self) -> Mapping[str, Score]:
        """By tenant, where there are any."""
        names = self.subject.tenants.names if self.subject.tenants else ()
        who = self.ran.plan.tenant
        return {name: self._scored(who == place) for place, name in enumerate(names) if (who == place).any()}

    @cached_property
    def in_time(self) -> NDArray[np.bool_]:
        """Whether each request was answered in time."""
        return in_time(self.ran.plan.workload, self.ran.results)

    @cached_property
    def good(self) -> NDArray[np.bool_]:
        """Whether each request was answered correctly in time."""
        return correct_in_time(self.ran.plan.workload, self.subject.label, self.ran.results)

    @cached_property
    def attainment(self) -> Interval:
        """The share answered in time, and how sure that is."""
        return self._share("in_time")

    @cached_property
    def effective_accuracy(self) -> Interval | None:
        """The share answered correctly in time, and how sure that is; None where nobody knows what is right.

        Of blocks of time and of distinct rows, those that are less sure say it.
        """
        if not self.subject.labelled:
            return None
        return less_sure(self._share("good"), share_of_rows(self.good, self.ran.plan.workload.sample))

    @property
    def accuracy_rests_on(self) -> str:
        """What the share answered correctly in time rests on where rows were asked more than once, else nothing."""
        sample, found = self.ran.plan.workload.sample, self.effective_accuracy
        rows = len(np.unique(sample))
        if found is None or rows == len(sample):
            return ""
        return f"{rows:,} distinct rows, 95 %: {percent(found.low)} to {percent(found.high)}"

    def _share(self, hits: str) -> Interval:
        blocks = self.blocks()
        return share_interval([block[hits] for block in blocks], [block["requests"] for block in blocks])

    def reasons(self) -> dict[str, int]:
        """How many got no answer, by why, most frequent first."""
        results = self.ran.results
        missing = results.fate != Fate.ANSWERED
        pairs = zip(results.fate[missing].tolist(), results.reason[missing].tolist(), strict=True)
        return dict(Counter(reason or str(fate).replace("_", " ") for fate, reason in pairs).most_common())

    def blocks(self) -> list[dict[str, Any]]:
        """Equal stretches of time: requests, in time, good, answered, and the histogram of latencies."""
        results, count = self.ran.results, len(self.ran.plan)
        place, _ = self._cut(min(MOST_BLOCKS, max(1, count // BLOCK_REQUESTS)), 0.0)
        answered = results.fate == Fate.ANSWERED
        found = []
        for number in range(int(place.max()) + 1):
            mine = place == number
            found.append(
                {
                    "requests": int(mine.sum()),
                    "in_time": int(self.in_time[mine].sum()),
                    "good": int(self.good[mine].sum()),
                    "answered": int(answered[mine].sum()),
                    "latency": Histogram.of(results.latency_s[mine & answered]).values(),
                }
            )
        return found

    def rows(self) -> dict[str, list[int]]:
        """Of each distinct row, in their order: requests, and good ones."""
        _, place, counts = np.unique(self.ran.plan.workload.sample, return_inverse=True, return_counts=True)
        return {"requests": counts.tolist(), "good": np.bincount(place[self.good], minlength=len(counts)).tolist()}

    def series(self) -> dict[str, Any]:
        """What happened when, by bins of time of equal length, in the order of what was due.

        `answered` alone counts by when answers came; the bins end with the last moment that was due.
        """
        results, work = self.ran.results, self.ran.plan.workload
        place, edges_s = self._cut(min(MOST_BINS, max(1, len(work) // BIN_REQUESTS)), LEAST_BIN_S)
        bins = len(edges_s) - 1
        answered = results.fate == Fate.ANSWERED
        came_s = work.arrival_s[answered] + results.latency_s[answered]

        def counted(which: NDArray[np.bool_]) -> list[int]:
            counts: list[int] = np.bincount(place[which], minlength=bins).tolist()
            return counts

        return {
            "edges_s": edges_s.tolist(),
            "due": counted(np.ones(len(work), dtype=np.bool_)),
            "answered": np.histogram(came_s, edges_s)[0].tolist(),
            "in_time": counted(self.in_time),
            "good": counted(self.good),
            "variants": self._by_variant(place, bins),
            "reasons": {name: counted(self._without(name)) for name in list(self.reasons())[:8]},
            "latency_s": {
                f"p{percent:g}": _by_bin(results.latency_s[answered], place[answered], bins, percent)
                for percent in _SHOWN_PERCENTS
            },
            "lag_s": _by_bin(self.ran.sending.lag_s, place, bins, 99.0),
        }

    def digest(self) -> str:
        """The same for runs that sent the same requests at the same moments, whatever came of them."""
        plan = self.ran.plan
        work = plan.workload
        sent = hashlib.sha256()
        for member in self.subject.members:
            sent.update(repr((member.served.family, member.variant, member.stock.labels)).encode())
            sent.update(member.stock.label.tobytes())
            for message in member.stock.messages:
                sent.update(repr((sorted(message.headers.items()), len(message.body))).encode())
                sent.update(message.body)
        sent.update(repr(self.subject.tenants).encode())
        for values in (work.arrival_s, work.slo_s, work.sample, plan.way, plan.tenant):
            sent.update(values.tobytes())
        return sent.hexdigest()[:16]

    def _by_variant(self, place: NDArray[np.int64], bins: int) -> dict[str, list[int]]:
        """Answers by bin and variant, in the families' own order; with several families, each name has its family's."""
        results, found = self.ran.results, dict[str, list[int]]()
        answered = results.fate == Fate.ANSWERED
        for number, member in enumerate(self.subject.members):
            mine = answered & (self.ran.plan.way == number)
            who = results.variant[mine].astype(str)
            known = [*member.served.variants, *sorted(set(who.tolist()) - set(member.served.variants))]
            for variant in known:
                name = f"{member.served.family}/{variant}" if len(self.subject.members) > 1 else variant
                counts = np.bincount(place[mine][who == variant], minlength=bins)
                if counts.any():
                    found[name] = counts.tolist()
        return found

    def values(self) -> dict[str, Any]:
        """Everything, for JSON."""
        answered = self.ran.results.fate == Fate.ANSWERED
        attainment, accuracy = self.attainment, self.effective_accuracy
        return {
            "label": self.label,
            "seed": self.seed,
            "rate_asked": self.rate,
            "started": self.ran.started,
            "cut": self.ran.cut,
            "workload": self.digest(),
            "score": score_json(self.score),
            "attainment_interval": [attainment.low, attainment.high],
            "effective_accuracy_interval": [accuracy.low, accuracy.high] if accuracy is not None else None,
            "families": {name: score_json(one) for name, one in self.families.items()},
            "tenants": {name: score_json(one) for name, one in self.tenants.items()},
            "reasons": self.reasons(),
            "generators": [dict(one) for one in self.ran.generators],
            "latency": Histogram.of(self.ran.results.latency_s[answered]).values(),
            "lag": Histogram.of(self.ran.sending.lag_s).values(),
            "series": self.series(),
            "blocks": self.blocks(),
            "rows": self.rows(),
        }

    def _decisive_lag(self, attainment: float) -> tuple[str, ...]:
        """A few late requests are too many where fewer may be late at all."""
        share = turned_late(self.ran.plan.workload, self.ran.results, self.ran.sending)
        if share <= 1.0 - attainment:
            return ()
        return (f"the generator's own lag made {share:.3%} of the requests late, as many as may be in all",)

    def _scored(self, which: NDArray[np.bool_]) -> Score:
        plan, sending = self.ran.plan.of(which), self.ran.sending
        own = dataclasses.replace(sending, lag_s=sending.lag_s[which])
        found = score(plan.workload, self.subject.label, self.ran.results.of(which), own)
        # Rates of a part are those of the whole run's time.
        whole_s = max(self.ran.plan.workload.duration_s, 1e-9)
        found = dataclasses.replace(found, rate=len(plan) / whole_s)
        return found if self.subject.labelled else _without_accuracy(found)

    def _without(self, reason: str) -> NDArray[np.bool_]:
        results = self.ran.results
        said: NDArray[np.bool_] = results.reason == reason
        if not said.any():
            silent = (results.reason == "") & (results.fate != Fate.ANSWERED)
            said = silent & (np.array([str(fate).replace("_", " ") for fate in results.fate.tolist()]) == reason)
        return said

    def _cut(self, parts: int, least_s: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The number of each request's stretch of time, of so many equal ones, and their edges."""
        arrival_s = self.ran.plan.workload.arrival_s
        whole_s = max(float(arrival_s[-1]), 1e-3)
        if least_s:
            parts = max(1, min(parts, int(whole_s / least_s)))
        edges_s = np.linspace(0.0, whole_s, parts + 1)
        place = np.minimum(np.searchsorted(edges_s, arrival_s, side="right") - 1, parts - 1)
        return place.astype(np.int64), edges_s


def _by_bin(values_s: NDArray[np.float64], place: NDArray[np.int64], bins: int, percent: float) -> list[float | None]:
    """A percentile of each bin; None where it has no values."""
    own = [values_s[place == number] for number in range(bins)]
    return [float(np.percentile(values, percent)) if len(values) else None for values in own]


def _without_accuracy(found: Score) -> Score:
    """The score of rows of which nobody has said what is right."""
    by_slo = tuple(dataclasses.replace(slo, effective_accuracy=math.nan) for slo in found.by_slo)
    return dataclasses.replace(
        found, effective_accuracy=math.nan, effective_accuracy_error=math.nan, accuracy=math.nan, by_slo=by_slo
    )
