"""The closed sets of words: what became of a request, why, and what its caller or a family may ask for."""

from __future__ import annotations

from enum import StrEnum


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
