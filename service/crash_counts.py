"""How often processes ended while each variant ran, and while it was loaded, as one process leaves it to the next.

Ends while it ran are forgiven by time, as strikes are: it ran meanwhile. Ends while it was loaded are not: it may have
waited all that time for its turn to be loaded. Only a load that succeeds forgives them.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from router.quarantine import back_off, sound_s
from router.words import Reason

LEFT_OUT_AFTER = 2
"""Ends while it was loaded, and no load that succeeded between them: one may be anybody's doing."""

Key = tuple[str, str, str]
"""Family, revision and variant."""


class _Ends(NamedTuple):
    """`running_s` is when it ran at the last of its `running` ends, on the machine's steady clock.

    It is `doubted` where others may have ended the process while it was loaded, and it was not loaded since.
    """

    running: int = 0
    loading: int = 0
    running_s: float = 0.0
    doubted: bool = False


class CrashCounts:
    """The counts that `said` holds; none where it says nonsense: it was being written when the process ended."""

    def __init__(self, said: bytes) -> None:
        self._ends: dict[Key, _Ends] = {}
        try:
            for row in json.loads(said.rstrip(b"\0") or b"[]"):
                family, revision, variant, running, loading, running_s, doubted = row
                ends = _Ends(max(0, int(running)), max(0, int(loading)), float(running_s), bool(doubted))
                self._ends[str(family), str(revision), str(variant)] = ends
        except (ValueError, TypeError, OverflowError):
            self._ends.clear()

    def ended_running(self, key: Key, now: float, *, doubted: bool = False) -> int:
        """A process ended while the variant ran, or was probed; how often by now, as far as it is not forgiven.

        Or, `doubted`, while it was loaded beside others.
        """
        ends = self._ends.pop(key, _Ends())
        before = 0 if _is_forgiven(ends, now) else ends.running
        # Last again: the oldest are forgotten first.
        self._ends[key] = ends._replace(running=before + 1, running_s=now, doubted=ends.doubted or doubted)
        return before + 1

    def ended_loading(self, key: Key) -> int:
        """A process ended by the variant while it was loaded; how often since it last was loaded."""
        ends = self._ends.pop(key, _Ends())
        self._ends[key] = ends._replace(loading=ends.loading + 1)
        return ends.loading + 1

    def loaded(self, key: Key) -> bool:
        """The variant was loaded: what ended while it was is forgiven. Whether there was anything to forgive."""
        ends = self._ends.get(key)
        if ends is None or not (ends.loading or ends.doubted):
            return False
        self._ends[key] = ends._replace(loading=0, doubted=False)
        return True

    def is_doubted(self, key: Key) -> bool:
        """Whether a process ended while the variant was loaded beside others, and it was not loaded since."""
        return self._ends.get(key, _Ends()).doubted

    def left_out(self, key: Key) -> int:
        """How many processes ended while the variant was loaded, where that is too many; else 0."""
        loading = self._ends.get(key, _Ends()).loading
        return loading if loading >= LEFT_OUT_AFTER else 0

    def said(self, most_bytes: int) -> bytes:
        """The counts as bytes. Those that do not fit are forgotten, the oldest first, and last what is left out."""
        rows = {key: json.dumps([*key, *ends]).encode() for key, ends in self._ends.items()}
        # Each row with a comma or a bracket after it, and a bracket before them all.
        spare = most_bytes - 1 - sum(len(row) + 1 for row in rows.values())
        for key in sorted(rows, key=lambda key: self.left_out(key) > 0):
            if spare >= 0:
                break
            spare += len(rows.pop(key)) + 1
            del self._ends[key]
        return b"[" + b",".join(rows.values()) + b"]"


def _is_forgiven(ends: _Ends, now: float) -> bool:
    """Whether a variant has been sound since it last ran at an end for as long as forgives its strikes."""
    if not ends.running:
        return True
    away_s = back_off(Reason.CRASHED).seconds(ends.running)
    return now - ends.running_s >= away_s + sound_s(Reason.CRASHED, ends.running)
