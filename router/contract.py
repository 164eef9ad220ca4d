"""What the scheduler and its driver tell each other: slots, batches, and what became of requests and batches.

Times are seconds on one monotonic clock that the driver chooses. Nouns made once per request, row or batch are
`NamedTuple`s: as immutable as a frozen dataclass and about three times cheaper to make.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from router.request import UNKNOWN, Item, Origin
from router.words import Escalation, Outcome, Reason


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
