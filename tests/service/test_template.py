"""The process that opens models: it waits for none of them."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Collection
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

import onnx
import psutil
import pytest

from service.processes.conversation import TEMPLATE_ENDED, End
from service.processes.host import Host
from service.processes.messages import READY
from tests.service.families import sign_model
from variants.runtimes.table import ONNXRUNTIME
from variants.session import ModelLoadError, SessionOptions

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="processes are watched by files")


def hosted(does: Callable[[Host], Awaitable[None]], left_to_slots: Collection[int] = ()) -> None:
    """Do something with a template, and end it."""

    async def run() -> None:
        host = Host(left_to_slots)
        host.start()
        try:
            await does(host)
        finally:
            host.stop()

    asyncio.run(run())


async def opened(host: Host, path: Path) -> int:
    """The number of a model that was opened by now."""
    return (await asyncio.to_thread(host.open, path, SessionOptions(), (), ONNXRUNTIME))[0]


def test_a_model_that_hangs_when_it_is_opened_keeps_nobody_waiting(tmp_path: Path) -> None:
    """Meanwhile other models are opened, and executors are made, end and are reported."""
    hangs, sound = tmp_path / "hangs.onnx", tmp_path / "sound.onnx"
    os.mkfifo(hangs)
    onnx.save(sign_model(), sound)

    async def does(host: Host) -> None:
        hanging = asyncio.create_task(opened(host, hangs))
        await opened(host, sound)
        ended: Future[End] = Future()
        link = host.fork(ended.set_result)
        link.connection.settimeout(30.0)
        assert READY == await asyncio.to_thread(link.connection.recv, 100)
        host.kill(link.executor)
        assert "was killed by SIGKILL" == (await asyncio.wait_for(asyncio.wrap_future(ended), 30.0)).said
        link.close()
        assert not hanging.done()
        host.stop()
        with pytest.raises(ModelLoadError, match="the gateway ends"):
            await hanging

    hosted(does)


async def is_opening(host: Host, after: int = 0) -> None:
    """Wait until the template, or another one `after` that, has a process that opens a model."""

    def opens(process: int) -> bool:
        with suppress(psutil.NoSuchProcess):
            return process not in (0, after) and bool(psutil.Process(process).children())
        return False

    async with asyncio.timeout(30.0):
        while not opens(host.process):  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.0)


@pytest.mark.parametrize("times", [1, 2])
def test_a_model_is_opened_by_the_next_template_where_the_first_ended_by_something_else(
    tmp_path: Path, times: int
) -> None:
    """Once; where that one ends, too, it may be the model's doing, and it is refused."""
    path, sound = tmp_path / "model.onnx", tmp_path / "sound.onnx"
    os.mkfifo(path)
    onnx.save(sign_model(), sound)

    async def does(host: Host) -> None:
        opening = asyncio.create_task(opened(host, path))
        await is_opening(host)
        if times == 1:
            sound.replace(path)
        first = host.process
        os.kill(first, signal.SIGKILL)
        if times == 1:
            assert await opening
            return
        # It is not told at once that the first one has ended: the second must not be taken for that.
        await is_opening(host, after=first)
        os.kill(host.process, signal.SIGKILL)
        with pytest.raises(ModelLoadError, match="the process that opened it ended"):
            await opening

    hosted(does)


def test_who_tries_a_model_waits_no_longer_than_the_host_is_there() -> None:
    """All that wait for the end of an executor are told by then; there is no other one."""

    async def does(host: Host) -> None:
        ended: Future[End] = Future()
        link = host.fork(ended.set_result)
        host.stop()
        assert (True, TEMPLATE_ENDED) == (ended.done(), ended.result(0.0).said)
        assert not host.wait_until_up()
        link.close()

    hosted(does)


@pytest.mark.skipif(len(psutil.Process().cpu_affinity()) < 2, reason="one core is left to a slot, another one is not")
def test_the_cores_of_slots_are_left_to_them() -> None:
    """Models are opened and tried on the other ones; an executor with a core is there alone."""
    core, *others = sorted(os.sched_getaffinity(0))

    async def does(host: Host) -> None:
        found = []
        for wanted in ((), (core,)):
            link = host.fork(lambda _: None, wanted)
            assert READY == await asyncio.to_thread(link.connection.recv, 100)
            (executor,) = psutil.Process(host.process).children()
            found.append(sorted(os.sched_getaffinity(executor.pid)))
            host.stop()
            host.start()
            link.close()
        assert [others, [core]] == found

    hosted(does, [core])


def test_another_template_comes_whatever_fails_by_the_end_of_the_first() -> None:
    """Who raises when it is told of the end keeps nobody else from being told, and no template away."""

    async def does(host: Host) -> None:
        def fails(_: End) -> None:
            raise KeyError("slot")

        ended: Future[End] = Future()
        links = [host.fork(fails), host.fork(ended.set_result)]
        first = host.process
        os.kill(first, signal.SIGKILL)
        assert TEMPLATE_ENDED == (await asyncio.wait_for(asyncio.wrap_future(ended), 30.0)).said
        assert await asyncio.to_thread(host.wait_until_up)
        assert first != host.process
        for link in links:
            link.close()

    hosted(does)
