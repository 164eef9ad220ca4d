"""How failures are answered: one exception, tables from outcomes to HTTP status and from that to gRPC's, and how values
are echoed.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, StrEnum
from math import inf, isfinite
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import orjson

from router.contract import Record
from router.words import Outcome, Reason

ECHO_CHARACTERS = 80
"""A message repeats at most this much of a caller's value."""


class DroppedReason(StrEnum):
    """The closed set of words in `x-request-dropped-reason`."""

    BACKLOG_FULL = "backlog_full"
    DEADLINE_INFEASIBLE = "deadline_infeasible"
    OVER_SHARE = "over_share"
    QUOTA = "quota"
    NOT_LOADED = "not_loaded"
    QUARANTINED = "quarantined"
    NOT_READY = "not_ready"
    DRAINING = "draining"
    TIMEOUT = "timeout"
    CLIENT_GONE = "client_gone"
    EXECUTOR_ERROR = "executor_error"


class ProtocolError(Exception):
    """A request that is answered with an error.

    `status` is the HTTP status, `message` one line for the caller, `reason` the word for `x-request-dropped-reason`
    (`None` where the request was not dropped but wrong), `retry_after_s` when to come back (`None`: not at all).
    """

    def __init__(
        self, status: int, message: str, *, reason: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.reason = reason
        self.retry_after_s = retry_after_s


class DroppedError(ProtocolError):
    """A request that has its outcome, and a record of it: no protocol error is to be counted."""


class Within(NamedTuple):
    """What a request wanted its answer within: seconds, and `word`, what it called that."""

    seconds: float
    word: Literal["SLO", "timeout"] = "SLO"

    def __str__(self) -> str:
        if not isfinite(self.seconds):
            return f"the {self.word}"
        # A timeout is what is left of it where gRPC has read it.
        digits = 3 if self.word == "timeout" else 6
        return f"the {self.word} of {f'{1e3 * self.seconds:.{digits}f}'.rstrip('0').rstrip('.')} ms"


ANY_SLO = Within(inf)
"""One that is not known."""


class Drop(NamedTuple):
    """How a request that got no answer is refused; its SLO takes the place of `{slo}` in the `message`,
    its family that of `{of}`.

    `retry` says whether coming back can help.
    """

    status: int
    reason: DroppedReason
    message: str
    retry: bool = False


BY_OUTCOME: Mapping[Outcome, Drop] = MappingProxyType(
    {
        Outcome.REJECTED_FULL: Drop(503, DroppedReason.BACKLOG_FULL, "the queue is full, try again later", True),
        Outcome.REJECTED_INFEASIBLE: Drop(
            429,
            DroppedReason.DEADLINE_INFEASIBLE,
            "no variant that may answer can meet {slo} now; a longer one, or another moment, may do",
            True,
        ),
        Outcome.REJECTED_QUOTA: Drop(429, DroppedReason.QUOTA, "the tenant's quota is used up, try again later", True),
        Outcome.EXPIRED: Drop(504, DroppedReason.TIMEOUT, "the timeout passed before the answer was ready"),
        Outcome.CANCELLED: Drop(499, DroppedReason.CLIENT_GONE, "the client closed the connection"),
        Outcome.FAILED: Drop(500, DroppedReason.EXECUTOR_ERROR, "the model failed on this request"),
    }
)
"""Every outcome without an answer. 499 is nginx's word for a client that hung up."""

BY_REASON: Mapping[Reason, Drop] = MappingProxyType(
    {
        Reason.OVER_SHARE: Drop(
            429,
            DroppedReason.OVER_SHARE,
            "the machine is crowded, and this model or tenant asks for more than its fair share; try again later",
            True,
        ),
        Reason.NOT_LOADED: Drop(503, DroppedReason.NOT_LOADED, "no variant{of} that may answer is loaded", True),
        Reason.QUARANTINED: Drop(
            503,
            DroppedReason.QUARANTINED,
            "every variant that may answer broke a short while ago and is kept away until it has been tried again",
            True,
        ),
        Reason.WRONG_OUTPUT: Drop(500, DroppedReason.EXECUTOR_ERROR, "the model gave something that is no answer"),
        Reason.CRASHED: Drop(500, DroppedReason.EXECUTOR_ERROR, "the model ended its process on this request"),
        Reason.HUNG: Drop(500, DroppedReason.EXECUTOR_ERROR, "the model did not come to an end on this request"),
        Reason.OUT_OF_MEMORY: Drop(500, DroppedReason.EXECUTOR_ERROR, "memory ended"),
        Reason.KILLED: Drop(500, DroppedReason.EXECUTOR_ERROR, "the process was killed that the model ran in"),
        Reason.EXECUTOR_LOST: Drop(
            503, DroppedReason.EXECUTOR_ERROR, "another request broke the executor, and no time was left", True
        ),
        Reason.SHUTDOWN: Drop(503, DroppedReason.DRAINING, "the server is shutting down, try another one", True),
    }
)
"""Reasons that say more than their outcome; these win."""


class GrpcStatus(IntEnum):
    """The status codes of gRPC that are answered."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


GRPC_STATUS: Mapping[int, GrpcStatus] = MappingProxyType(
    {
        200: GrpcStatus.OK,
        400: GrpcStatus.INVALID_ARGUMENT,
        401: GrpcStatus.UNAUTHENTICATED,
        403: GrpcStatus.PERMISSION_DENIED,
        404: GrpcStatus.NOT_FOUND,
        408: GrpcStatus.DEADLINE_EXCEEDED,
        413: GrpcStatus.RESOURCE_EXHAUSTED,
        429: GrpcStatus.RESOURCE_EXHAUSTED,
        499: GrpcStatus.CANCELLED,
        500: GrpcStatus.INTERNAL,
        501: GrpcStatus.UNIMPLEMENTED,
        503: GrpcStatus.UNAVAILABLE,
        504: GrpcStatus.DEADLINE_EXCEEDED,
    }
)
"""By the HTTP status that the same failure has. Clients retry what their policy names: UNAVAILABLE, as a rule."""


def dropped(
    outcome: Outcome,
    reason: Reason,
    *,
    within: Within = ANY_SLO,
    retry_after_s: float = 1.0,
    quickest_s: float = 0.0,
    family: str = "",
) -> DroppedError:
    """The error for a finished request without an answer, for that `family`, which wanted one `within` that.

    `quickest_s` is what answering it takes at the least where nothing else runs, as far as that is known. Raises
    `KeyError` for an outcome that has an answer.
    """
    drop = BY_REASON.get(reason) or BY_OUTCOME[outcome]
    if drop.reason is DroppedReason.DEADLINE_INFEASIBLE and within.seconds < quickest_s:
        takes = f"the quickest takes {1e3 * quickest_s:.3g} ms alone"
        return DroppedError(
            drop.status, f"no variant that may answer can ever meet {within}: {takes}", reason=drop.reason
        )
    message = drop.message.replace("{slo}", str(within)).replace("{of}", f" of {family}" if family else "")
    return DroppedError(drop.status, message, reason=drop.reason, retry_after_s=retry_after_s if drop.retry else None)


def status_of(record: Record) -> int:
    """The HTTP status that says how a request ended."""
    if record.outcome is Outcome.SERVED or record.outcome is Outcome.SERVED_LATE:
        return 200
    return (BY_REASON.get(record.reason) or BY_OUTCOME[record.outcome]).status


def malformed(field: str, expected: str, got: str) -> ProtocolError:
    """A 400 that names the field, what was expected and what came."""
    return ProtocolError(400, f"{field}: expected {expected}, got {got}")


def body(message: str) -> bytes:
    """The JSON body of an error: `{"error": message}`, the one key that clients read."""
    return orjson.dumps({"error": message})


def shown(value: Any) -> str:
    """A parsed JSON value as a message may repeat it: short, on one line, and never the content of a container."""
    if isinstance(value, str):
        cut = value[:ECHO_CHARACTERS]
        return repr(cut) if len(cut) == len(value) else f"{cut!r}... ({len(value)} characters)"
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return "an object"
    return repr(value)[:ECHO_CHARACTERS]
