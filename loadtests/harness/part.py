"""What one generator hands in of a plan, as bytes between processes, and how the parts of several become the whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from loadtests.generator_faults import Sending
from loadtests.harness.cargo import share
from loadtests.outcomes import LOST, Fate, Results

_WORDS = ("fate", "variant", "reason")
_NUMBERS: Mapping[str, type[np.generic]] = {
    "label": np.int64,
    "latency_s": np.float64,
    "total_s": np.float64,
    "compute_s": np.float64,
    "escalated": np.bool_,
}


class Part(NamedTuple):
    """What became of the requests of a plan, how the sending went, and when it began.

    `due` bool [n] is false for requests whose moment had not come when the run was stopped: nobody ever sent them.
    `started` is the intended start in seconds since 1970, by the clock of the generator's machine. `repeated` requests
    were written twice, because a kept connection did not take them.
    """

    results: Results
    sending: Sending
    due: NDArray[np.bool_]
    started: float
    repeated: int = 0

    def pack(self) -> dict[str, Any]:
        """As values that msgpack takes."""
        results, sending = self.results, self.sending
        packed: dict[str, Any] = {name: getattr(results, name).tobytes() for name in _NUMBERS}
        for name in _WORDS:
            words, numbers = np.unique(getattr(results, name).astype(str), return_inverse=True)
            packed[name] = [words.tolist(), numbers.astype(np.int64).tobytes()]
        return packed | {
            "due": self.due.tobytes(),
            "lag_s": sending.lag_s.tobytes(),
            "cpu_share": sending.cpu_share,
            "most_in_flight": sending.most_in_flight,
            "started": self.started,
            "repeated": self.repeated,
        }

    @classmethod
    def unpack(cls, packed: Mapping[str, Any]) -> Self:
        """What `pack` made."""
        columns: dict[str, Any] = {name: np.frombuffer(packed[name], kind).copy() for name, kind in _NUMBERS.items()}
        for name in _WORDS:
            words, numbers = packed[name]
            known = [Fate(word) for word in words] if name == "fate" else words
            table = np.empty(len(known), dtype=object)
            table[:] = known
            columns[name] = table[np.frombuffer(numbers, np.int64)]
        sending = Sending(np.frombuffer(packed["lag_s"], np.float64), packed["cpu_share"], packed["most_in_flight"])
        due = np.frombuffer(packed["due"], np.bool_)
        return cls(Results(**columns), sending, due, packed["started"], packed["repeated"])


def merged(parts: Sequence[Part | None], count: int) -> Part:
    """The whole of `count` requests from the parts of generators that shared them with `share`.

    Where one handed nothing in, its requests stay unsent, which makes a run invalid. A core is as full as the fullest.
    """
    results, due, lag_s = Results.pending(count), np.ones(count, dtype=np.bool_), np.zeros(count)
    there = [part for part in parts if part is not None]
    for number, part in enumerate(parts):
        mine = share(len(parts), number)
        if part is None:
            results.reason[mine] = LOST
            continue
        results.put(mine, part.results)
        due[mine], lag_s[mine] = part.due, part.sending.lag_s
    starts = [part.started for part in there if part.due.any()] or [0.0]
    sending = Sending(
        lag_s,
        max((part.sending.cpu_share for part in there), default=0.0),
        sum(part.sending.most_in_flight for part in there),
        max(starts) - min(starts),
    )
    return Part(results, sending, due, min(starts), sum(part.repeated for part in there))
