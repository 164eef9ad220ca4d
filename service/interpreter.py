"""The garbage collector and the interpreter's thread switching, kept out of the way of requests."""

from __future__ import annotations

import gc
import sys


def settle_interpreter(switch_interval_s: float) -> None:
    """Call it once everything that stays is loaded: the garbage collector will not look at it again."""
    sys.setswitchinterval(switch_interval_s)
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
