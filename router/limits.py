"""What bounds a scheduler, and how far ahead it plans."""

from __future__ import annotations

from dataclasses import dataclass

from router.request import NEVER


@dataclass(frozen=True, slots=True)
class Limits:
    """`backlog_rows` bounds the rows that wait, `look_ahead` the rows of a lane that a policy sees.

    Rows are planned to be answered `transit_s` before their deadline, at most a tenth of the SLO: it stands for what a
    request spends outside, on its way in and back. `reply_margin_s` is how much earlier still a kept answer is sent: it
    covers the lateness of the driver's timers. In the last `ahead` (0 to 1) of the seconds that a batch is planned to
    take, some milliseconds at most, the next one of its slot may be decided, for its driver to have at hand; 0 waits
    until it has ended. A batch hangs that runs for `hang_s` at least, and many times as long as planned.
    """

    backlog_rows: int = 4096
    look_ahead: int = 32
    reply_margin_s: float = 0.002
    transit_s: float = 0.0
    ahead: float = 0.0
    hang_s: float = NEVER


SERVING = Limits(transit_s=0.004, ahead=0.7)
"""As the gateway has them by default."""
