"""The template as the gateway sees it: models that it opens, executors that it makes, and a new one where it ends."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any, NamedTuple, Protocol

import orjson

from service.processes.messages import MOST_BYTES, Close, Fork, Kill, Open, ToTemplate, pair
from service.processes.tensors import Area
from variants.session import ModelLoadError, SessionOptions
from variants.shared_parts import TableFile

logger = logging.getLogger("pareto.executors")

ROOT = Path(__file__).resolve().parents[2]
"""Where the package `service` lies."""
BEGINS_WITHIN_S = 60.0
"""An executor that opens models itself and is not ready by then hangs, and is ended."""
ANSWERS_WITHIN_S = 300.0
"""A template that opens a model for longer hangs, and is ended."""
GIVEN_UP_WITHIN_S = 5.0
"""For so long a model that is closed waits for executors that have it no more. One that is opened waits for those that
have it for as long as an executor may need to begin."""
BACK_WITHIN_S = 30.0
"""For so long whoever needs a template waits for one that is started again; less than a probe may take."""
ASKS_AGAIN_S = 0.02
LOOKS_EVERY_S = 0.002
LEAST_PAUSE_S, MOST_PAUSE_S, STEADY_S = 0.05, 10.0, 10.0
"""Between two templates of which the first ended: twice as long each time, from the first one on after a steady one."""


TEMPLATE_ENDED = "ended with the process that opens models"
NO_TEMPLATE = "could not be made: there was no process that opens models"
_AGAIN = "again"
"""A key of what is said of a model that nobody has opened, though it may be sound: the next template may be asked."""


class End(NamedTuple):
    """How an executor ended: in words, and by which signal (0: by none)."""

    said: str
    signal: int


class Slot(Protocol):
    """What has executors made, one after the other."""

    def renew(self) -> None:
        """Other models are open than before, or there is another template."""

    @property
    def generation(self) -> int:
        """That of the executor that runs batches; as new as can be where there is none."""


class Link(NamedTuple):
    """The gateway's end of an executor: its number, its socket, and the areas that it shares."""

    executor: int
    connection: socket.socket
    areas: tuple[Area, Area]

    def close(self) -> None:
        """Let it end, if it lives, after what it runs."""
        self.connection.close()
        for area in self.areas:
            area.close()


class Host:
    """Keeps one template running; methods run on the event loop's thread but where they say otherwise.

    `generation` counts how often models were opened or closed: an executor has those of the generation that it was made
    in. Templates, and all that is forked without a core of its own, keep off the cores that are `left_to_slots`.
    """

    def __init__(self, left_to_slots: Collection[int] = ()) -> None:
        self.generation = 0
        self._left_to_slots = frozenset(left_to_slots)
        self.slots: list[Slot] = []
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count(1)
        self._sending = threading.Lock()
        self._open: dict[int, Open] = {}
        self._waiting: dict[int, Future[dict[str, Any]]] = {}
        self._ends: dict[int, Callable[[End], None]] = {}
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._started_s = 0.0
        self._pause_s = LEAST_PAUSE_S
        self._restarting: asyncio.Task[None] | None = None
        self._settled = threading.Event()
        """Set while no template is on its way: there is one that has all models, or there will be none."""
        self._settled.set()
        self._stopped = False

    @property
    def process(self) -> int:
        """The number of the template's process; 0 while there is none."""
        return 0 if self._control is None or self._process is None else self._process.pid

    @property
    def is_up(self) -> bool:
        """Whether there is a template that has all models."""
        return self._control is not None and self._restarting is None

    def wait_until_up(self) -> bool:
        """Wait for a template that is started again; false where there is none in time. Called on any other thread."""
        return self._settled.wait(BACK_WITHIN_S) and self.is_up

    def start(self) -> None:
        """Start a template. Raises `OSError` where there can be none."""
        ours, its = pair()
        with its:
            path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
            # Its numpy computes nothing that would be worth threads, which no copy of it would have.
            own = {"PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore::DeprecationWarning"}
            self._process = subprocess.Popen(
                [sys.executable, "-m", "service.processes.template", str(its.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                env=os.environ | own,
                pass_fds=[its.fileno()],
            )
        if kept := os.sched_getaffinity(0) - self._left_to_slots:
            # It has no threads yet. It may have ended already, which is told by its socket.
            with suppress(ProcessLookupError):
                os.sched_setaffinity(self._process.pid, kept)
        self._started_s = monotonic()
        self._control = ours
        ours.setblocking(False)
        self._loop.add_reader(ours.fileno(), self._read)

    def stop(self) -> None:
        """End the template, and all executors that it has made."""
        self._stopped = True
        if self._restarting is not None:
            self._restarting.cancel()
        self._forget_template()
        self._fail_waiting("the gateway ends")
        # Whoever tries a model waits on another thread, which is waited for when the event loop ends.
        self._end_all()
        self._settled.set()

    def open(
        self, path: Path, options: SessionOptions, tables: Sequence[TableFile], runtime: str
    ) -> tuple[int, dict[str, Any], int]:
        """Have a model opened; returns its number, what the template says of it, and the first generation that has it.

        Called on any other thread.

        It is opened in a process of its own first: it may break the one that opens it, and others have theirs in there.
        Where the template ends meanwhile, the next one is asked. Raises `ModelLoadError` where opening fails, or
        executors that have it do not come. Then all slots have such ones.
        """
        number = next(self._numbers)
        wanted = Open(number, path, options, tuple(tables), runtime, careful=True)
        self._open[number] = wanted
        try:
            said = self._ask(number, wanted, BACK_WITHIN_S)
            if _AGAIN in said and self.wait_until_up():
                # Once more, for the template may have ended by anything; but only once, for it may have been this.
                said = self._ask(number, wanted, BACK_WITHIN_S)
            if "error" in said:
                raise ModelLoadError(said["error"])
        except ModelLoadError:
            self._open.pop(number, None)
            raise
        generation = self._taken_over(BEGINS_WITHIN_S)
        if generation is None:
            self.let_go_soon(number)
            raise ModelLoadError(f"{path}: not all executors have it within {BEGINS_WITHIN_S:g} s")
        return number, said, generation

    def let_go_soon(self, number: int) -> None:
        """As `let_go`, on any thread, at any moment."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self.let_go, number)

    def close_model(self, number: int) -> None:
        """Have a model closed, and wait for that. Called on any other thread."""
        if self._open.pop(number, None) is not None:
            with suppress(ModelLoadError):
                self._ask(number, Close(number))
            self._taken_over(GIVEN_UP_WITHIN_S)

    def let_go(self, number: int) -> None:
        """Have a model closed that nobody needs any more."""
        if self._open.pop(number, None) is not None:
            self._send(Close(number))
            self.generation += 1
            for slot in self.slots:
                slot.renew()

    def fork(self, ended: Callable[[End], None], core: int | None = None, only: int | None = None) -> Link:
        """Have an executor made, of `only` one model or all; called on any thread.

        `ended` is called, on the event loop, when it is no more. The link is there at once. The executor says `READY`
        over it once it can take batches, if it ever does.
        """
        executor = next(self._numbers)
        ours, its = pair()
        areas = Area.make(), Area.make()
        self._ends[executor] = ended
        link = Link(executor, ours, areas)
        with its:
            if not self._send(Fork(executor, core, only), [its.fileno(), *(area.file for area in areas)]):
                self._loop.call_soon_threadsafe(self._ended, executor, End(NO_TEMPLATE, 0))
        return link

    def kill(self, executor: int) -> None:
        """End an executor at once; called on any thread."""
        self._send(Kill(executor))

    def _send(self, told: ToTemplate, files: list[int] | None = None) -> bool:
        """Whether it has reached a template; on any thread."""
        with self._sending:
            control = self._control
            if control is None:
                return False
            try:
                socket.send_fds(control, [pickle.dumps(told)], files or [])
            except OSError:
                # It has ended, which is told by its socket, or it has hung for long: there is no room for more.
                return False
            return True

    def _ask(self, number: int, told: ToTemplate, wait_s: float = 0.0) -> dict[str, Any]:
        """What the template answers; where there is none, the next one that comes within `wait_s`."""
        limit_s = monotonic() + wait_s
        while True:
            own: Future[dict[str, Any]] = Future()
            # Two may ask for the same model: who wants it, and whoever has a new template open all that there are.
            answer = self._waiting.setdefault(number, own)
            try:
                if self._send(told):
                    return answer.result(ANSWERS_WITHIN_S)
            except TimeoutError:
                process = self._process
                if process is not None:
                    process.kill()
                raise ModelLoadError(f"nothing came of it within {ANSWERS_WITHIN_S:g} s") from None
            finally:
                if self._waiting.get(number) is own:
                    del self._waiting[number]
            if self._stopped or monotonic() > limit_s:
                raise ModelLoadError("there is no process that opens models")
            sleep(ASKS_AGAIN_S)

    def _taken_over(self, within_s: float) -> int | None:
        """Begin a generation; wait, on another thread, until all slots have executors of it. None where they do not."""
        # Beyond its own limit it is not waited for: the event loop may have ended.
        with suppress(TimeoutError, CancelledError, RuntimeError):
            return asyncio.run_coroutine_threadsafe(self._renew_all(within_s), self._loop).result(2 * within_s)
        return None

    async def _renew_all(self, within_s: float) -> int | None:
        self.generation += 1
        wanted = self.generation
        for slot in self.slots:
            slot.renew()
        limit_s = monotonic() + within_s
        while any(slot.generation < wanted for slot in self.slots):
            if self._stopped or monotonic() > limit_s:
                return None
            await asyncio.sleep(LOOKS_EVERY_S)
        return wanted

    def _read(self) -> None:
        while self._control is not None:
            try:
                message = self._control.recv(MOST_BYTES)
            except BlockingIOError:
                return
            except ConnectionResetError:
                message = b""
            if not message:
                self._template_ended()
                return
            what, number, *said = orjson.loads(message)
            if what == "ended":
                self._ended(number, End(*said))
            elif (answer := self._waiting.pop(number, None)) is not None:
                if number in self._open and "error" not in said[0]:
                    # From now on each template has it, and none needs care.
                    self._open[number] = self._open[number]._replace(careful=False)
                answer.set_result(said[0])

    def _ended(self, executor: int, end: End) -> None:
        told = self._ends.pop(executor, None)
        if told is None:
            return
        try:
            told(end)
        except Exception:
            # One slot's trouble keeps neither others from being told nor another template from being started.
            logger.exception("who was told of the end of an executor failed on it")

    def _template_ended(self) -> None:
        logger.error("the process that opens models has ended; it is started again, and all executors with it")
        self._forget_template()
        if not self._stopped and self._restarting is None:
            self._settled.clear()
            self._restarting = self._loop.create_task(self._restart())
        self._fail_waiting("the process that opened it ended")
        self._end_all()

    def _end_all(self) -> None:
        for executor in list(self._ends):
            self._ended(executor, End(TEMPLATE_ENDED, 0))

    def _forget_template(self) -> None:
        with self._sending:
            control, self._control = self._control, None
        if control is not None:
            self._loop.remove_reader(control.fileno())
            control.close()
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            # Killed, it ends within a moment: nobody may be left who waits for it.
            process.wait()

    def _fail_waiting(self, why: str) -> None:
        waiting, self._waiting = self._waiting, {}
        for answer in waiting.values():
            answer.set_result({"error": why, _AGAIN: True})

    async def _restart(self) -> None:
        """Start another template, and others where those end as well, until one has all models."""
        while not self._stopped:
            if monotonic() - self._started_s > STEADY_S:
                self._pause_s = LEAST_PAUSE_S
            await asyncio.sleep(self._pause_s)
            self._pause_s = min(2 * self._pause_s, MOST_PAUSE_S)
            try:
                self.start()
            except OSError as error:
                logger.error("the process that opens models cannot be started: %s", error.strerror)
                continue
            await asyncio.to_thread(self._open_again)
            if self._control is not None:
                break
        self._restarting = None
        self._settled.set()
        self.generation += 1
        logger.info("the process that opens models is back (%.1f s)", monotonic() - self._started_s)
        for slot in self.slots:
            slot.renew()

    def _open_again(self) -> None:
        """What cannot be opened any more is an error of who asks for it, one by one."""
        for number, wanted in list(self._open.items()):
            if wanted.careful:
                # Not open yet: who wants it asks again.
                continue
            try:
                said = self._ask(number, wanted)
            except ModelLoadError as error:
                said = {"error": str(error)}
            if "error" in said:
                logger.error("a model could not be opened again: %s", said["error"])
