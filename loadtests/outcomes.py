"""What became of the requests of a workload, live or simulated, as their sender sees it."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from loadtests.traces import Seconds

LOST, NO_SOCKET = "generator lost", "no socket"
"""Why requests were not sent that the generator is to blame for: it is gone, or its machine had no socket for them."""


class Fate(StrEnum):
    """What became of a request, as its sender sees it."""

    ANSWERED = "answered"
    REFUSED = "refused"
    EXPIRED = "expired"
    FAILED = "failed"
    NOT_SENT = "not_sent"


class Reply(NamedTuple):
    """What a sender got back for one request, in the words of `Results`."""

    fate: Fate
    label: int = -1
    variant: str = ""
    total_s: float = math.nan
    compute_s: float = math.nan
    escalated: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Results:
    """What became of each request of a workload, in its order; arrays of its length n.

    `fate` and `variant` are object arrays of str; `label` int64 is the answered label's index, -1 where none was;
    `latency_s` float64 runs from the intended start to the answer, infinite where there was none. `total_s` and
    `compute_s` float64 are the server's own seconds for an answered request, not-a-number where it told none.
    `escalated` bool tells whether more than one variant answered it, one after the other. `reason` (object, str) is why
    a request has no answer, in the server's word or the client's; empty where nobody said.
    """

    fate: NDArray[np.object_]
    variant: NDArray[np.object_]
    label: NDArray[np.int64]
    latency_s: Seconds
    total_s: Seconds
    compute_s: Seconds
    escalated: NDArray[np.bool_]
    reason: NDArray[np.object_]

    @classmethod
    def pending(cls, count: int) -> Results:
        """Results of requests that nobody has sent yet, to be filled in."""
        fate = np.full(count, Fate.NOT_SENT, dtype=object)
        variant, reason = (np.full(count, "", dtype=object) for _ in range(2))
        unknown = np.full(count, math.nan)
        label, latency_s = np.full(count, -1, dtype=np.int64), np.full(count, math.inf)
        escalated = np.zeros(count, dtype=np.bool_)
        return cls(fate, variant, label, latency_s, unknown, unknown.copy(), escalated, reason)

    def take(self, index: int, reply: Reply, latency_s: float) -> None:
        """Write down what became of one request; `latency_s` runs from its intended start."""
        self.fate[index], self.label[index], self.variant[index] = reply.fate, reply.label, reply.variant
        self.total_s[index], self.compute_s[index] = reply.total_s, reply.compute_s
        self.escalated[index], self.reason[index] = reply.escalated, reply.reason
        if reply.fate is Fate.ANSWERED:
            self.latency_s[index] = latency_s

    def since(self, first: int) -> Results:
        """The results of the requests from that index on."""
        return self.of(slice(first, None))

    def of(self, which: slice | NDArray[np.bool_]) -> Results:
        """The results of some of the requests, in their order."""
        return Results(*(getattr(self, column.name)[which] for column in fields(self)))

    def put(self, which: slice, part: Results) -> None:
        """Write the results of some of the requests, which others have made, into these."""
        for column in fields(self):
            getattr(self, column.name)[which] = getattr(part, column.name)

    def save(self, path: Path) -> None:
        """Write as .npz."""
        arrays = {column.name: getattr(self, column.name) for column in fields(self)}
        arrays |= {name: arrays[name].astype(str) for name in ("fate", "variant", "reason")}
        with path.open("wb") as stream:
            np.savez_compressed(stream, **arrays)

    @classmethod
    def load(cls, path: Path) -> Results:
        """Read what `save` wrote. Raises `OSError`, `KeyError` and `ValueError`."""
        with np.load(path, allow_pickle=False) as archive:
            arrays = {column.name: archive[column.name] for column in fields(cls)}
        fate = np.array([Fate(word) for word in arrays["fate"].tolist()], dtype=object)
        words = {name: arrays[name].astype(object) for name in ("variant", "reason")}
        return cls(**{**arrays, **words, "fate": fate})
