"""The nouns of the router: what goes in, what comes out, and the closed sets of words.

Times are seconds on one monotonic clock that the driver chooses; sizes are bytes; qualities are fractions in [0, 1].

Nouns made once per request or row are `NamedTuple`s: as immutable as a frozen dataclass and about three times
cheaper to make, which counts at ten thousand requests a second.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

NEVER = math.inf
"""A deadline, timeout or wake-up that does not exist."""


class Outcome(StrEnum):
    """How a request ended. Exactly one for every submitted request; also the `outcome` label of the metrics."""

    SERVED = "served"
    SERVED_LATE = "served_late"
    REJECTED_FULL = "rejected_full"
    REJECTED_INFEASIBLE = "rejected_infeasible"
    REJECTED_QUOTA = "rejected_quota"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    FAILED = "failed"


class Reason(StrEnum):
    """Why a request was answered by the variant it got, or not answered; also the `reason` label of the metrics."""

    PINNED = "pinned"
    """The caller named the variant."""
    STICKY = "sticky"
    """It answered the same caller a short while ago."""
    RETRIED = "retried"
    """Another variant broke under the request, and this one is the next best that is in time."""
    ONLY_VARIANT = "only_variant"
    """No other loaded variant satisfies the request's floor."""
    MOST_ACCURATE = "most_accurate"
    """The best variant of all fitted."""
    FITS_SLACK = "fits_slack"
    """The best variant with which everything queued still fits the slack."""
    BEST_VALUE = "best_value"
    """The choice that makes most of the time that is left for everything queued and expected."""
    ESCALATED = "escalated"
    """An earlier answer was unsure, and slack and the other work allowed a better variant."""
    OVERLOAD = "overload"
    """Nothing fitted everything queued: the cheapest variant took what it could."""
    SPARE_CAPACITY = "spare_capacity"
    """Work without a deadline ran because nothing with a deadline waited."""
    LATE = "late"
    """The deadline was lost; the caller wants the answer all the same (`when_late`)."""
    FIXED = "fixed"
    """The policy always chooses so."""
    BACKLOG_FULL = "backlog_full"
    DEADLINE_INFEASIBLE = "deadline_infeasible"
    """Even the cheapest allowed variant cannot answer by the deadline any more."""
    OVER_SHARE = "over_share"
    """Others need the time: the machine is crowded, and its family or tenant asks for more than its fair share."""
    QUOTA = "quota"
    """The tenant has used up its rate, or has as many unfinished requests as it may."""
    NOT_LOADED = "not_loaded"
    TIMEOUT = "timeout"
    CLIENT_GONE = "client_gone"
    QUARANTINED = "quarantined"
    """Only variants may answer that broke a short while ago (`router.quarantine`)."""
    EXECUTOR_ERROR = "executor_error"
    """The model raised an exception."""
    WRONG_OUTPUT = "wrong_output"
    """The model gave something that is no answer: a wrong shape, or numbers that are not finite."""
    CRASHED = "crashed"
    """The model ended the process that it ran in."""
    HUNG = "hung"
    """The model ran many times as long as it may."""
    OUT_OF_MEMORY = "out_of_memory"
    """Memory ended: there was none to be had, or the system killed the process that the model ran in."""
    KILLED = "killed"
    """Somebody else killed the process that the model ran in."""
    EXECUTOR_LOST = "executor_lost"
    """Another batch broke the executor before this one had its turn."""
    SHUTDOWN = "shutdown"
    INTERNAL_ERROR = "internal_error"
    """A rule of ours raised an exception."""


class WhenLate(StrEnum):
    """What becomes of a request whose SLO can no longer be met."""

    SHED = "shed"
    """Refuse it at once."""
    SERVE = "serve"
    """Answer it with the cheapest allowed variant after all work that can still be in time."""


class WhenCold(StrEnum):
    """What becomes of a request that only variants may answer which are not loaded."""

    WAIT = "wait"
    """It waits for one to be loaded, and is answered even if its SLO is lost by then."""
    REFUSE = "refuse"
    """Refuse it at once."""


class Escalation(StrEnum):
    """Why a first answer was replaced by a better variant's, or was not."""

    NONE = "none"
    """There was nothing to decide: no better variant may answer, nothing is known of confidences, or the policy
    answers every row once."""
    CONFIDENT = "confident"
    """The first answer was so sure that a better variant was not worth its time."""
    ESCALATED = "escalated"
    """A better variant answered."""
    NO_TIME = "no_time"
    """A better variant was wanted, but the deadline or other work came first: the kept answer went out."""
    FAILED = "failed"
    """The better variant failed; the kept answer went out."""


class Origin(NamedTuple):
    """Where a request comes from, in words that the router hands on and does not read, but for one.

    `name` is its id for the caller, `path` what was asked for, `trace` (32 hexadecimal digits) the trace it belongs to,
    `parent` (16) the caller's span in it. `span` (16) is the gateway's own: it says that the request is traced, and so
    that its record has its steps. Each is empty where there is none. `draw` in [0, 1) is where its name falls when a
    share of the requests is looked at, 1.0 where none is.
    """

    name: str = ""
    path: str = ""
    trace: str = ""
    span: str = ""
    parent: str = ""
    draw: float = 1.0


UNKNOWN = Origin()
"""The origin of what nobody outside has asked for."""


class Request(NamedTuple):
    """One accepted request, as the scheduler sees it: numbers and names, no payload.

    `row_classes` has one size class per row (so its length is the number of rows, at least 1). `deadline_s` is
    arrival plus SLO, `NEVER` for work without one (class `batch`); `timeout_s` is when the answer becomes worthless.
    `urgency` orders before the deadline, lower first. `min_quality` is a floor on the variant's measured quality.
    The caller (`tenant` and `session`) keeps the variant that answered it for `sticky_s` seconds, as far as deadlines
    allow. An `audit` is the gateway's own, nobody's request: no quota holds for it. `origin` is what others know it by.
    A `charged` one is asked again: its tenant's quota has counted its rows, and does not refuse it now.
    """

    id: int
    family: str
    row_classes: tuple[int, ...]
    arrival_s: float
    deadline_s: float = NEVER
    timeout_s: float = NEVER
    min_quality: float = 0.0
    urgency: int = 0
    tenant: str = "default"
    service_class: str = "default"
    pinned: str | None = None
    when_late: WhenLate = WhenLate.SHED
    revision: str = ""
    sticky_s: float = 0.0
    session: str = ""
    audit: bool = False
    origin: Origin = UNKNOWN
    charged: bool = False


class Item(NamedTuple):
    """One row of a request in the backlog. Its own order is earliest deadline first within an urgency.

    `sequence` is unique, so comparisons never reach past it. `lowest` is the index of the cheapest variant that may
    answer it: the pinned one, or the first rung of the family's ladder that satisfies `floor`, the least quality that
    the request accepts. Of a row that waits for a variant to be loaded, `lowest` is negative: `~lowest` is the cheapest
    that may answer it.

    A row that keeps an answer while it waits for a better one has `at`, the variant that gave it, and its calibrated
    `confidence` in (0, 1]; a fresh row has -1 and 0.
    """

    urgency: int
    deadline_s: float
    sequence: int
    request_id: int
    row: int
    size_class: int
    lowest: int
    floor: float
    slo_s: float
    at: int = -1
    confidence: float = 0.0


@dataclass(frozen=True, slots=True)
class LatencyTable:
    """Measured seconds of one variant: `median_s[c][i]` and `tail_s[c][i]` for size class c and batch `batches[i]`.

    `batches` ascends and starts at 1. `tail_s` is the 95th percentile.
    """

    batches: tuple[int, ...]
    median_s: tuple[tuple[float, ...], ...]
    tail_s: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class VariantProfile:
    """What the router knows of a variant. `stages` is its path; a whole graph is a path of one stage.

    `quality` is what it is believed to be worth now: what was measured less `lost`, see `router.agreement.corrected`.
    `latency` is that of the slots, or, where there are several devices, of the first of them; `elsewhere` has those of
    the others, by the name of the device.
    """

    name: str
    quality: float
    latency: LatencyTable
    stages: tuple[str, ...] = ("whole",)
    memory_bytes: int = 0
    batch_invariant: bool = True
    lost: float = 0.0
    elsewhere: tuple[tuple[str, LatencyTable], ...] = ()

    def on(self, device: str) -> LatencyTable:
        """Its seconds on a device; on one that nothing is known of, those of the first."""
        return next((table for name, table in self.elsewhere if name == device), self.latency)

    @property
    def measured(self) -> float:
        """The quality that was measured when the variant was built."""
        return self.quality + self.lost


class Share(NamedTuple):
    """What a family or tenant may count on where the machine is crowded: see `router.fairness`.

    A weight (above 0) against the others, and a guaranteed share of the machine's time in [0, 1].
    """

    weight: float = 1.0
    guaranteed: float = 0.0


EVEN = Share()
"""The share of who has no other."""


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What every variant of a family answered on the same n held-out labelled rows: the ground that cascades stand on.

    `correct` bool [k, n] and `confidence` float32 [k, n] (calibrated, of the answered label), variants in the family's
    order; `predicted` int64 [k, n] has the answered labels where they are known. Raises `ValueError` where the shapes
    differ.
    """

    correct: NDArray[np.bool_]
    confidence: NDArray[np.float32]
    predicted: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        if self.predicted is not None and self.predicted.shape != self.correct.shape:
            raise ValueError(f"evidence: labels {self.predicted.shape}, expected {self.correct.shape}")
        if self.correct.ndim != 2 or self.correct.shape != self.confidence.shape:
            raise ValueError(f"evidence: shapes {self.correct.shape} and {self.confidence.shape}, expected two [k, n]")


@dataclass(frozen=True, slots=True)
class Family:
    """One revision of a family: its variants, cheapest first by measured batch-1 seconds.

    `sizes[c]` is the largest row of size class c (tokens; 1 for tensor families). `max_batch` bounds the items of one
    dispatch. `loaded` has the indices of the variants in memory, ascending, by default all; a family without any is
    cold. Those that are `quarantined` answer nobody, loaded or not. `rungs` holds the indices of the variants worth
    choosing: each better than all cheaper ones; the others answer only who pins them. `sound` is the same without
    those in quarantine, `ladder` of those of them that are loaded. Without `evidence` a family has no cascades.
    `share` is what the family may count on beside others. Raises `ValueError` where a family has no variants or two of
    one name, evidence of another number of variants, or an index in `loaded` or `quarantined` that is none.
    """

    name: str
    variants: tuple[VariantProfile, ...]
    sizes: tuple[int, ...] = (1,)
    max_batch: int = 32
    revision: str = "1"
    evidence: Evidence | None = field(default=None, compare=False)
    loaded: tuple[int, ...] | None = None
    when_cold: WhenCold = WhenCold.WAIT
    share: Share = EVEN
    quarantined: tuple[int, ...] = ()
    rungs: tuple[int, ...] = field(init=False)
    sound: tuple[int, ...] = field(init=False)
    ladder: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        names = [variant.name for variant in self.variants]
        if not names:
            raise ValueError(f"family {self.name}: no variants")
        if len(set(names)) != len(names):
            raise ValueError(f"family {self.name}: two variants share a name in {names}")
        if self.evidence is not None and len(self.evidence.correct) != len(names):
            raise ValueError(f"family {self.name}: evidence of {len(self.evidence.correct)} of {len(names)} variants")
        everything = range(len(names))
        loaded = tuple(everything) if self.loaded is None else tuple(sorted(set(self.loaded)))
        quarantined = tuple(sorted(set(self.quarantined)))
        for what, indices in (("loaded", loaded), ("quarantined", quarantined)):
            if indices and not 0 <= indices[0] <= indices[-1] < len(names):
                raise ValueError(f"family {self.name}: {what} {indices}, but there are {len(names)} variants")
        object.__setattr__(self, "loaded", loaded)
        object.__setattr__(self, "quarantined", quarantined)
        object.__setattr__(self, "rungs", self._worth_choosing(everything))
        object.__setattr__(self, "sound", self._worth_choosing(v for v in everything if v not in quarantined))
        object.__setattr__(self, "ladder", self._worth_choosing(v for v in loaded if v not in quarantined))

    def _worth_choosing(self, indices: Iterable[int]) -> tuple[int, ...]:
        ladder: list[int] = []
        for index in indices:
            if not ladder or self.variants[index].quality > self.variants[ladder[-1]].quality:
                ladder.append(index)
        return tuple(ladder)

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices besides the first one that its variants have latencies of their own on."""
        return tuple(dict.fromkeys(name for variant in self.variants for name, _ in variant.elsewhere))

    def on(self, device: str) -> Family:
        """The same family as it is on that device alone."""
        variants = tuple([replace(one, latency=one.on(device), elsewhere=()) for one in self.variants])
        return replace(self, variants=variants)

    def with_loaded(self, loaded: Iterable[int]) -> Family:
        """The same family with these variants loaded, and no others."""
        return replace(self, loaded=tuple(loaded))

    def with_quarantined(self, quarantined: Iterable[int]) -> Family:
        """The same family with these variants in quarantine, and no others."""
        return replace(self, quarantined=tuple(quarantined))

    def without(self, variant: str) -> Family:
        """The same family as seen by a row that this variant is not to answer."""
        index = self.index(variant)
        return self if index is None or index in self.quarantined else self.with_quarantined((*self.quarantined, index))

    def answers(self, variant: str) -> bool:
        """Whether the variant of that name is one of the family's, and can answer now."""
        index = self.index(variant)
        return index is not None and self.is_loaded(index)

    def is_loaded(self, variant: int) -> bool:
        """Whether the variant of that index can answer now."""
        return self.loaded is not None and variant in self.loaded and variant not in self.quarantined

    def index(self, variant: str) -> int | None:
        """Index of the variant of that name, `None` where the family has none."""
        for index, candidate in enumerate(self.variants):
            if candidate.name == variant:
                return index
        return None

    def first_stage(self, at: int, variant: int) -> int:
        """The stage from which `variant` goes on from an answer of variant `at` (-1: none); 0 where it starts anew.

        It goes on where the path of `at` is the beginning of its own: exits of one network.
        """
        if at < 0:
            return 0
        done, path = self.variants[at].stages, self.variants[variant].stages
        return len(done) if len(done) < len(path) and path[: len(done)] == done else 0

    def start(self, at: int, variant: int) -> int:
        """`at` where `variant` goes on from its answer, -1 where it starts anew: what `LatencyModel` is asked with."""
        return at if self.first_stage(at, variant) else -1

    def lowest_rung(self, min_quality: float) -> int | None:
        """Index of the cheapest variant on the ladder of at least that quality, `None` where none reaches it."""
        for index in self.ladder:
            if self.variants[index].quality >= min_quality:
                return index
        return None


@dataclass(frozen=True, slots=True)
class Slot:
    """A place where one batch runs at a time, with `width` threads. `device` names the hardware it belongs to.

    The slots of one device are alike: a batch takes as long on each of them.
    """

    index: int
    device: str = "cpu"
    width: int = 1


@dataclass(frozen=True, slots=True)
class Hints:
    """What the slow outer loop believes (`router.outer_loop`); advice with an age, never needed.

    All by family. `caution` (at least 1) multiplies the planning margin on predicted seconds, learnt or set; `floors`
    raises the least quality; `weights` scales what a family's accuracy is worth to policies that weigh families against
    each other. Older than `max_age_s`, it is as if absent.
    """

    issued_s: float
    max_age_s: float = 60.0
    caution: Mapping[str, float] = field(default_factory=dict)
    floors: Mapping[str, float] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)


class Dispatch(NamedTuple):
    """One batch for one slot; serialisable, so that an executor may live in another process.

    Stages `from_stage` (inclusive) to `to_stage` (exclusive) of the variant's path are run; where `from_stage` is not
    0, they take up the state that an earlier batch left of each row. `predicted_s` is planned from start to answer,
    `predicted_run_s` the part of it in which the model runs. One that is `ahead` starts when the batch ends that its
    slot still runs, expected at `started_s`. `decided_s` is when the policy chose it. `device` is the slot's, `crowd`
    the share of the other slots' threads that were busy when it began, in [0, 1].
    """

    batch_id: int
    slot: int
    family: str
    revision: str
    variant: str
    from_stage: int
    to_stage: int
    items: tuple[Item, ...]
    started_s: float
    predicted_s: float
    predicted_run_s: float
    reason: Reason
    ahead: bool = False
    decided_s: float = 0.0
    device: str = "cpu"
    crowd: float = 0.0

    @property
    def start(self) -> int:
        """Index of the variant from whose answer the batch goes on, -1 where it starts anew: as `Family.start`."""
        return self.items[0].at if self.from_stage else -1


class Step(NamedTuple):
    """One answer to a request's first row: the batch that gave it, of so many `rows`, and when.

    `decided_s` is when the batch was chosen, `started_s` when it began, `ended_s` when its answer was there;
    `predicted_s` is what it was planned to take.
    """

    variant: str
    reason: Reason
    rows: int
    decided_s: float
    started_s: float
    ended_s: float
    predicted_s: float


class Record(NamedTuple):
    """Everything that happened to one request. Headers, metrics, logs and load tests all read this one object.

    `variant` is the one that answered, `mixed` where rows differ, empty where none did; `row_variants` has the
    variant of each row (empty where none answered); `path` is the sequence of variants that answered the first row,
    `confidence` in (0, 1] the first answer's (0.0 where it is not known), `escalation` why there was another or not.
    `queue_s` runs from arrival to the start of the first batch, `compute_s` from there to the end of the last one.
    `quality` is the mean measured quality of the variants that answered, 0.0 where none did. `batch_size` is the
    largest batch a row was part of. `predicted_s` is what the last batch was planned to take, `observed_s` what it
    took. `cold` says that it waited for a variant to be loaded. `retry_after_s` is after how long the same request
    would be taken in, as far as that is known, else 0.0. An `audit` is no user's request. `origin` is what others know
    it by; `steps` has the answers to the first row one by one where the request is traced, else nothing. `charged` says
    that its tenant's quota counted its rows, `retried` that a variant broke under a row of it, which then went on to
    wait for another one. `device` is where the last batch ran that answered a row of it, empty where none did.
    """

    request_id: int
    family: str
    revision: str
    variant: str
    row_variants: tuple[str, ...]
    path: tuple[str, ...]
    outcome: Outcome
    reason: Reason
    rows: int
    arrival_s: float
    finished_s: float
    queue_s: float
    compute_s: float
    slo_s: float
    slo_met: bool
    quality: float
    batch_size: int
    tenant: str
    service_class: str
    predicted_s: float
    observed_s: float
    confidence: float = 0.0
    escalation: Escalation = Escalation.NONE
    cold: bool = False
    retry_after_s: float = 0.0
    audit: bool = False
    origin: Origin = UNKNOWN
    steps: tuple[Step, ...] = ()
    charged: bool = False
    retried: bool = False
    device: str = ""

    @property
    def total_s(self) -> float:
        """Seconds from arrival to the outcome."""
        return self.finished_s - self.arrival_s


class BatchRecord(NamedTuple):
    """One batch that ended: what it was, when, whether it gave an answer, and where not, why."""

    dispatch: Dispatch
    finished_s: float
    failed: bool
    fault: Reason | None = None


class Spell(NamedTuple):
    """A stay of a variant in quarantine: why, what it has been struck with so far, and when it is to be probed.

    Without a strike it is no stay yet: the variant is on suspicion (`router.suspicion`). `over` says that it has ended.
    `number` tells spells apart.
    """

    number: int
    family: str
    revision: str
    variant: str
    reason: Reason
    strikes: int
    until_s: float
    over: bool = False


class Poll(NamedTuple):
    """What one turn of the scheduler wants done: batches to start now, what ended, and when to call again.

    `hung` are batches that are given up: their slots are out of service until the driver restores them. `probes` are
    variants in quarantine whose time is up: the driver runs each of them on rows of its own, where no request depends
    on it, and says how that went. `spells` of quarantine have begun, been made longer, or ended.
    """

    dispatches: tuple[Dispatch, ...]
    records: tuple[Record, ...]
    batches: tuple[BatchRecord, ...]
    wake_at: float
    hung: tuple[Dispatch, ...] = ()
    probes: tuple[Spell, ...] = ()
    spells: tuple[Spell, ...] = ()
