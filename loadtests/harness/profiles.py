"""The profiles by name, with the options of all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from loadtests.harness import search, soak, spike, steady
from loadtests.harness.search import SearchOptions
from loadtests.harness.session import Ended, Session
from loadtests.harness.smoke import smoke
from loadtests.harness.soak import SoakOptions
from loadtests.harness.spike import SpikeOptions
from loadtests.harness.subject import Subject
from loadtests.harness.verdict import Wanted
from loadtests.load import Load

DURATIONS_S: Mapping[str, float] = {
    "steady": steady.DURATION_S,
    "smoke": 1.0,
    "search": search.DURATION_S,
    "soak": soak.DURATION_S,
    "spike": spike.DURATION_S,
}
"""Every profile, and how long its load lasts where nobody says; that of `smoke` is as long as it has to be."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What is to be found out; `load` is None for `smoke`, which has its own."""

    name: str
    load: Load | None
    seed: int
    wanted: Wanted = field(default_factory=Wanted)
    search: SearchOptions = field(default_factory=SearchOptions)
    soak: SoakOptions = field(default_factory=SoakOptions)
    spike: SpikeOptions = field(default_factory=SpikeOptions)

    def run(self, session: Session) -> Ended:
        """Send what it takes and judge. Raises `TraceError` where the load cannot be drawn."""
        if self.name == "smoke" or self.load is None:
            return smoke(session, self.seed)
        match self.name:
            case "search":
                return search.search(session, self.load, self.wanted, self.search, self.seed)
            case "soak":
                return soak.soak(session, self.load, self.wanted, self.soak, self.seed)
            case "spike":
                return spike.spike(session, self.load, self.wanted, self.spike, self.seed)
            case _:
                return steady.steady(session, self.load, self.wanted, self.seed)

    def rehearse(self, subject: Subject) -> None:
        """Draw what is sent first. Raises `TraceError` for a load that cannot be drawn, before anything is started."""
        if self.load is None:
            return
        if self.name == "spike":
            spike.plan_of(subject, self.load, self.spike, self.seed)
        else:
            subject.draw(self.load, self.seed)

    def values(self) -> dict[str, Any]:
        """What was asked for, for JSON."""
        load = dataclasses.asdict(self.load) if self.load is not None else None
        if load is not None and self.load is not None:
            load |= {"mix": str(self.load.mix), "trace": self.load.trace and self.load.trace.name}
        own = {
            "search": dataclasses.asdict(self.search),
            "soak": dataclasses.asdict(self.soak),
            "spike": dataclasses.asdict(self.spike),
        }
        return {"load": load, "wanted": dataclasses.asdict(self.wanted), "own": own.get(self.name, {})}
