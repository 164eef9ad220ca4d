"""The slot's side of its executors: what is blamed for the end of one, and which batches one may run."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest

from router.contract import Dispatch, Slot
from router.words import Reason
from service.loaded_family import LoadedFamily
from service.processes.conversation import End
from service.processes.deaths import MemoryKills, reason_of
from service.processes.host import Host
from service.processes.links import Link
from service.processes.messages import MOST_BYTES, READY, pair
from service.processes.models import HostedModel, HostedSession
from service.processes.slot import SlotProcess
from service.processes.tensors import Area
from service.work import Ran

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="there is shared memory without a name")


class Hosting:
    """In the host's place: executors are ends of connections, played by the test, in the order of their making."""

    def __init__(self) -> None:
        self.generation = 0
        self.is_up = True
        self.slots: list[SlotProcess] = []
        self.made: list[tuple[socket.socket, Callable[[End], None]]] = []
        self.killed: list[int] = []

    def fork(
        self, ended: Callable[[End], None], cores: tuple[int, ...] = (), *, threads: int | None = None, name: str = ""
    ) -> Link:
        """As `Host.fork`."""
        assert ((), None, "pareto-slot-0") == (cores, threads, name)
        ours, its = pair()
        self.made.append((its, ended))
        return Link(len(self.made) - 1, ours, (Area.make(), Area.make()))

    def kill(self, executor: int) -> None:
        """As `Host.kill`."""
        self.killed.append(executor)

    def let_go_soon(self, number: int) -> None:
        """As `Host.let_go_soon`."""


class Told:
    """What the slot tells."""

    def __init__(self) -> None:
        self.lost_by: list[Reason] = []
        self.back = 0
        self.outcomes: list[Ran | Exception] = []

    def done(self, batch_id: int, outcome: Ran | Exception, run_s: float) -> None:
        """See `SlotEvents`."""
        assert (batch_id, run_s) == (1, 0.0)
        self.outcomes.append(outcome)

    def ended(self, batch_id: int, outcome: Ran | Exception, run_s: float, ended_s: float) -> None:
        """See `SlotEvents`."""
        assert ended_s >= run_s
        self.done(batch_id, outcome, 0.0)

    def lost(self, slot: int, reason: Reason, said: str) -> None:
        """See `SlotEvents`."""
        assert (0, True) == (slot, bool(said))
        self.lost_by.append(reason)

    def restored(self, slot: int) -> None:
        """See `SlotEvents`."""
        self.back += 1 - slot


BATCH = Dispatch(1, 0, "f", "1", "only", 0, 1, (), 0.0, 0.1, 0.1, Reason.ONLY_VARIANT)


def made(host: Hosting, generation: int = 0) -> tuple[SlotProcess, Told]:
    """A slot of a family whose only model is of that generation; its first executor is ready soon."""
    said = {"input_names": ["x"], "output_names": ["logits"]}
    model = HostedModel(cast(Host, host), 7, said, generation)
    loaded: Any = SimpleNamespace(
        paths_on=lambda _: {"only": (HostedSession(Path("only.onnx"), model, 0.0, 0),)},
        preparer=SimpleNamespace(collate=lambda _: {}),
    )
    told = Told()
    slot = SlotProcess(Slot(0), cast(Host, host), {"f": cast(LoadedFamily, loaded)}, told)
    host.made[0][0].send(READY)
    return slot, told


async def until(condition: Callable[[], bool]) -> None:
    """Let the event loop go on until the condition holds."""
    async with asyncio.timeout(10.0):
        while not condition():  # noqa: ASYNC110 - what it waits for has no event
            await asyncio.sleep(0)


def test_a_batch_that_has_not_reached_an_executor_is_not_blamed() -> None:
    """The executor had ended before; the slot is lost with that batch once, and back with the next executor."""

    async def run() -> tuple[list[Reason], int]:
        host = Hosting()
        slot, told = made(host)
        await until(lambda: slot.is_up)
        its, ended = host.made[0]
        its.close()
        slot.start(BATCH, ())
        assert [] == told.lost_by
        ended(End("was killed by SIGSEGV", signal.SIGSEGV))
        host.made[1][0].send(READY)
        await until(lambda: slot.is_up)
        slot.stop()
        return told.lost_by, told.back

    assert ([Reason.EXECUTOR_LOST], 1) == asyncio.run(run())


def test_a_kill_for_want_of_memory_before_a_batch_is_not_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel has killed something since this process looked last, and then somebody else kills the executor."""
    kills = MemoryKills(iter([6, 7, 7]).__next__, lambda: 0.0)
    monkeypatch.setattr("service.processes.deaths._KILLS", kills)
    monkeypatch.setattr("service.processes.slot.reason_of", lambda end: reason_of(end, kills))

    async def run() -> list[Reason]:
        host = Hosting()
        slot, told = made(host)
        await until(lambda: slot.is_up)
        slot.start(BATCH, ())
        its, ended = host.made[0]
        its.close()
        ended(End("was killed by SIGKILL", signal.SIGKILL))
        slot.stop()
        return told.lost_by

    assert [Reason.KILLED] == asyncio.run(run())


def test_a_batch_that_an_executor_had_is_blamed_for_its_end() -> None:
    """It had been sent, and nothing came back."""

    async def run() -> list[Reason]:
        host = Hosting()
        slot, told = made(host)
        await until(lambda: slot.is_up)
        slot.start(BATCH, ())
        its, ended = host.made[0]
        assert 1 == orjson.loads(its.recv(MOST_BYTES))[0]
        its.close()
        ended(End("was killed by SIGSEGV", signal.SIGSEGV))
        slot.stop()
        return told.lost_by

    assert [Reason.CRASHED] == asyncio.run(run())


def test_an_executor_that_says_nonsense_is_ended_for_its_batch() -> None:
    """It is killed by us, which is no reason to doubt whose doing that is."""

    async def run() -> tuple[list[Reason], list[int]]:
        host = Hosting()
        slot, told = made(host)
        await until(lambda: slot.is_up)
        slot.start(BATCH, ())
        its, ended = host.made[0]
        its.send(b"nonsense")
        await until(lambda: bool(host.killed))
        ended(End("was killed by SIGKILL", signal.SIGKILL))
        slot.stop()
        return told.lost_by, host.killed

    assert ([Reason.CRASHED], [0]) == asyncio.run(run())


def test_a_batch_waits_for_an_executor_that_has_its_model() -> None:
    """One that was made before the model was open is not asked to run it."""

    async def run() -> list[Any]:
        host = Hosting()
        slot, told = made(host, generation=1)
        await until(lambda: slot.is_up)
        host.generation = 1
        slot.start(BATCH, ())
        its, _ = host.made[1]
        its.send(READY)
        await until(lambda: slot.generation == 1)
        sent = orjson.loads(its.recv(MOST_BYTES))
        # Its connection was closed, with nothing on it.
        assert b"" == host.made[0][0].recv(MOST_BYTES)
        assert ([], []) == (told.outcomes, told.lost_by)
        slot.stop()
        return cast(list[Any], sent)

    assert [1, 0, [7], []] == asyncio.run(run())
