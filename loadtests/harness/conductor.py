"""Starts the generator process, and workers where wanted, and has plans sent, one after the other."""

from __future__ import annotations

import dataclasses
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Self

from loadtests.generator_faults import Sending
from loadtests.harness.cargo import Cargo, Plan
from loadtests.harness.link import Link, LinkClosedError, Said
from loadtests.harness.part import Part
from loadtests.harness.processes import ROOT, Processes
from loadtests.outcomes import Results

LOCUST_FILE = ROOT / "loadtests" / "locustfile.py"
START_LIMIT_S = 120.0
_LOOK_EVERY_S = 0.2


class ConductorError(Exception):
    """The generator does not work. The message is one line."""


class InterruptedRunError(Exception):
    """Somebody has asked twice to end."""


@dataclass(frozen=True, slots=True)
class Ways:
    """How the load is sent. Without `workers` the generator is one process.

    With `listen` (host, port) so many workers are waited for there, else they are started here. `web` is where locust's
    page listens, `form` what its form shows.
    """

    workers: int = 0
    listen: tuple[str, int] | None = None
    web: tuple[str, int] | None = None
    form: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ran:
    """A plan that was sent: what was due of it, what became of it, and how each generator fared.

    `cut` is whether somebody ended it early. `started` is when the first moment was, in seconds since 1970.
    """

    plan: Plan
    results: Results
    sending: Sending
    generators: tuple[Mapping[str, Any], ...]
    started: float
    cut: bool


Watch = Callable[[Mapping[str, Any] | None], None]
"""Called a few times a second while a plan is sent, with the counts so far where there are new ones."""


class Conductor:
    """A generator that runs. Use as a context; the generator and the workers it has started end with it."""

    def __init__(self, cargo: Cargo, ways: Ways) -> None:
        self._cargo = cargo
        self._ways = ways
        self._processes = Processes()
        self._interrupts = 0
        self._halted = False
        self._pressed: Mapping[str, Any] | None = None
        self._link: Link | None = None
        self.port = 0
        """Where the master waits for workers."""

    def __enter__(self) -> Self:
        """Start everything but workers from elsewhere. Raises `ConductorError`."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                command = (sys.executable, "-m", "loadtests.harness.generator", str(theirs.fileno()))
                self._processes.start(command, pass_fds=(theirs.fileno(),))
            self._link = Link(ours)
            ways = self._ways
            bind = ways.listen or ("127.0.0.1", 0)
            web = list(ways.web) if ways.web else None
            self._say(
                "setup",
                cargo=self._cargo.pack(),
                workers=ways.workers,
                bind=list(bind),
                web=web,
                form=dict(ways.form),
            )
            self.port = self._expect("ready", START_LIMIT_S).values["port"]
            if ways.workers and ways.listen is None:
                at = ("--master-host", "127.0.0.1", "--master-port", str(self.port))
                locust = (sys.executable, "-m", "locust", "-f", str(LOCUST_FILE), "--worker", *at)
                for _ in range(ways.workers):
                    self._processes.start((*locust, "--loglevel", "ERROR"))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End everything."""
        if self._link is not None:
            self._link.close()
        self._processes.close()

    @property
    def interrupted(self) -> bool:
        """Whether somebody has pressed Ctrl-C, or stop on locust's page, since the profile began."""
        return self._interrupts > 0 or self._halted

    def workers(self) -> int:
        """How many workers are there. Raises `ConductorError`."""
        self._say("workers")
        count: int = self._expect("workers", START_LIMIT_S).values["count"]
        return count

    def wait_for_workers(self, told: Callable[[int], None]) -> None:
        """Until all workers are there; `told` how many, whenever that changes. Raises `ConductorError`.

        Workers from elsewhere are waited for as long as it takes, those started here for `START_LIMIT_S`.
        """
        until_s = None if self._ways.listen else time.monotonic() + START_LIMIT_S
        known = -1
        while known < self._ways.workers and not self.interrupted:
            if (count := self.workers()) != known:
                known = count
                told(count)
            self._check()
            if until_s is not None and time.monotonic() > until_s:
                raise ConductorError(f"after {START_LIMIT_S:g} s there are {known} of {self._ways.workers} workers")
            time.sleep(_LOOK_EVERY_S)

    def wait_for_button(self) -> Mapping[str, Any] | None:
        """Until somebody presses start on locust's page: what its form says; None where interrupted instead."""
        self._halted = False
        while not self._interrupts:
            if (pressed := self._pressed) is not None:
                self._pressed = None
                return pressed
            self._hear()
        return None

    def over(self) -> None:
        """The profile is over: locust's page may begin another one."""
        self._say("over")

    def run(self, plan: Plan, watch: Watch = lambda counts: None) -> Ran | None:
        """Have a plan sent and wait for its end; None where it was cut before anything was due.

        Raises `ConductorError` where the generator breaks.
        """
        return None if self.interrupted else self._ran(plan, watch)

    def _ran(self, plan: Plan, watch: Watch) -> Ran | None:
        self._say("run", plan=plan.pack())
        stopping = False
        while True:
            if self.interrupted and not stopping:
                stopping = True
                self._say("stop")
            said = self._hear()
            if said is None:
                watch(None)
            elif said.kind == "counts":
                watch(said.values)
            elif said.kind == "ran":
                part = Part.unpack(said.values["part"])
                break
        if not part.due.any():
            return None
        return Ran(
            plan.of(part.due),
            part.results.of(part.due),
            dataclasses.replace(part.sending, lag_s=part.sending.lag_s[part.due]),
            tuple(said.values["generators"]),
            part.started,
            cut=not bool(part.due.all()),
        )

    @contextmanager
    def catching_interrupts(self) -> Iterator[None]:
        """The first Ctrl-C ends the run that goes on, so that it can be reported; the second ends everything."""

        def note(number: int, frame: FrameType | None) -> None:
            self._interrupts += 1
            if self._interrupts > 1:
                raise InterruptedRunError

        before = signal.signal(signal.SIGINT, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _say(self, kind: str, **values: Any) -> None:
        assert self._link is not None, "the conductor is used as a context"
        try:
            self._link.say(kind, **values)
        except LinkClosedError:
            raise self._lost() from None

    def _hear(self) -> Said | None:
        """The next message that is for the caller."""
        assert self._link is not None, "the conductor is used as a context"
        try:
            said = self._link.hear(_LOOK_EVERY_S)
        except LinkClosedError:
            raise self._lost() from None
        if said is None:
            return None
        match said.kind:
            case "broken":
                raise ConductorError(f"the generator failed: {said.values['why']}")
            case "pressed":
                self._pressed = said.values["form"]
            case "halted":
                self._halted = True
        return said

    def _expect(self, kind: str, within_s: float) -> Said:
        until_s = time.monotonic() + within_s
        while time.monotonic() < until_s:
            said = self._hear()
            if said is not None and said.kind == kind:
                return said
        raise ConductorError(f"the generator does not answer within {within_s:g} s")

    def _check(self) -> None:
        if self._processes.has_ended():
            raise self._lost()

    def _lost(self) -> ConductorError:
        return ConductorError(f"a generator process ended: {self._processes.last_words()}")
