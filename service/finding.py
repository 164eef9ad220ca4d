"""One thing that `pareto doctor` looked at."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How bad a finding is. Only `BROKEN` keeps the gateway from serving."""

    FINE = "fine"
    NOTE = "note"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `text` is one line that says what was found and, where it is not fine, what to do."""

    subject: str
    verdict: Verdict
    text: str
