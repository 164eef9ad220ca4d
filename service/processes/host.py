"""The template as the gateway sees it: models that it opens, executors that it makes, and a new one where it ends."""

from __future__ import annotations

import asyncio
import itertools
import logging
import subprocess
import threading
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

from service.paths import KilledError, NotNowError
from service.processes.conversation import AGAIN, ANSWERS_WITHIN_S, NO_TEMPLATE, Conversation, End
from service.processes.links import Link, template_process
from service.processes.messages import KILLED, NOT_NOW, Close, Fork, Kill, Open, ToTemplate, pair
from service.processes.tensors import Area
from variants.session import ModelLoadError, SessionOptions
from variants.shared_parts import TableFile

logger = logging.getLogger("pareto.executors")

BEGINS_WITHIN_S = 60.0
"""An executor that opens models itself and is not ready by then hangs, and is ended."""
GIVEN_UP_WITHIN_S = 5.0
"""For so long whoever has executors exchanged waits for those that have no more than is open. A model that is opened
waits for those that have it for as long as an executor may need to begin."""
ENDS_WITHIN_S = 1.0
"""And then for so long for the end of the old ones, which have nothing to do any more: they hold memory until then."""
BACK_WITHIN_S = 30.0
"""For so long whoever needs a template waits for one that is started again; less than a probe may take."""
LOOKS_EVERY_S = 0.002
LEAST_PAUSE_S, MOST_PAUSE_S, STEADY_S = 0.05, 10.0, 10.0
"""Between two templates of which the first ended: twice as long each time, from the first one on after a steady one."""


class Slot(Protocol):
    """What has executors made, one after the other."""

    def renew(self) -> None:
        """Other models are open than before, or there is another template."""

    @property
    def generation(self) -> int:
        """That of the executor that runs batches; as new as can be where there is none."""

    @property
    def is_settled(self) -> bool:
        """Whether all executors that it has left have ended."""


class Host:
    """Keeps one template running; methods run on the event loop's thread but where they say otherwise.

    `generation` counts how often models were opened or closed: an executor has those of the generation that it was made
    in. Templates, and all that is forked without cores of its own, keep off the cores that are `left_to_slots`.
    """

    def __init__(self, left_to_slots: Collection[int] = ()) -> None:
        self.generation = 0
        self._left_to_slots = frozenset(left_to_slots)
        self.slots: list[Slot] = []
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count(1)
        self._open: dict[int, Open] = {}
        self._talk = Conversation(self._loop, self._is_open, self._template_ended)
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
        return 0 if not self._talk.is_on or self._process is None else self._process.pid

    @property
    def is_up(self) -> bool:
        """Whether there is a template that has all models."""
        return self._talk.is_on and self._restarting is None

    def wait_until_up(self) -> bool:
        """Wait for a template that is started again; false where there is none in time. Called on any other thread."""
        return self._settled.wait(BACK_WITHIN_S) and self.is_up

    def start(self) -> None:
        """Start a template. Raises `OSError` where there can be none."""
        ours, its = pair()
        with its:
            self._process = template_process(its, self._left_to_slots)
        self._started_s = monotonic()
        self._talk.begin(ours)

    def stop(self) -> None:
        """End the template, and all executors that it has made."""
        self._stopped = self._talk.is_over = True
        if self._restarting is not None:
            self._restarting.cancel()
        self._forget_template()
        self._talk.fail_waiting("the gateway ends")
        # Whoever tries a model waits on another thread, which is waited for when the event loop ends.
        self._talk.end_all()
        self._settled.set()

    def open(
        self, path: Path, options: SessionOptions, tables: Sequence[TableFile], runtime: str
    ) -> tuple[int, dict[str, Any], int]:
        """Have a model opened; returns its number, what the template says of it, and the first generation that has it.

        Called on any other thread.

        It is opened in a process of its own first: it may break the one that opens it, and others have theirs in there.
        Where the template ends meanwhile, the next one is asked. Raises `ModelLoadError` where opening fails, and
        `NotNowError` where nobody is there to open it (`KilledError`: any more), or executors that have it do not come.
        Then all slots have such ones.
        """
        number = next(self._numbers)
        wanted = Open(number, path, options, tuple(tables), runtime, careful=True)
        self._open[number] = wanted
        try:
            said = self._ask(number, wanted, BACK_WITHIN_S)
            if AGAIN in said and self.wait_until_up():
                # Once more, for the template may have ended by anything; but only once, for it may have been this.
                said = self._ask(number, wanted, BACK_WITHIN_S)
            if "error" in said:
                if self._stopped or NOT_NOW in said:
                    raise NotNowError(said["error"])
                raise (KilledError if KILLED in said else ModelLoadError)(said["error"])
        except ModelLoadError:
            self._open.pop(number, None)
            raise
        generation = self._taken_over(BEGINS_WITHIN_S)
        if generation is None:
            self.let_go_soon(number)
            raise NotNowError(f"{path}: not all executors have it within {BEGINS_WITHIN_S:g} s")
        return number, said, generation

    def let_go_soon(self, number: int) -> None:
        """As `let_go`, on any thread, at any moment."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self.let_go, number)

    def close_model(self, number: int) -> None:
        """Have a model closed, and wait for that. Called on any other thread.

        Executors that were made before have it, and hold its memory, until there are others: see `exchange`.
        """
        if self._open.pop(number, None) is not None:
            with suppress(ModelLoadError):
                self._ask(number, Close(number))

    def exchange(self) -> None:
        """Have other executors for all slots, and wait until the old ones have ended. Called on any other thread."""
        self._taken_over(GIVEN_UP_WITHIN_S)

    def let_go(self, number: int) -> None:
        """Have a model closed that nobody needs any more."""
        if self._open.pop(number, None) is not None:
            self._talk.send(Close(number))
            self.generation += 1
            for slot in self.slots:
                slot.renew()

    def fork(
        self,
        ended: Callable[[End], None],
        cores: tuple[int, ...] = (),
        *,
        only: int | None = None,
        threads: int | None = None,
        name: str = "",
    ) -> Link:
        """Have an executor made, on these cores, of `only` one model or all (see `Fork`); called on any thread.

        `ended` is called, on the event loop, when it is no more. The link is there at once. The executor says `READY`
        over it once it can take batches, if it ever does.
        """
        executor = next(self._numbers)
        ours, its = pair()
        areas = Area.make(), Area.make()
        self._talk.expect_end(executor, ended)
        link = Link(executor, ours, areas)
        with its:
            told = Fork(executor, cores, only, threads, name)
            if not self._talk.send(told, [its.fileno(), *(area.file for area in areas)]):
                self._loop.call_soon_threadsafe(self._talk.ended, executor, End(NO_TEMPLATE, 0))
        return link

    def kill(self, executor: int) -> None:
        """End an executor at once; called on any thread."""
        self._talk.send(Kill(executor))

    def _ask(self, number: int, told: ToTemplate, wait_s: float = 0.0) -> dict[str, Any]:
        """See `Conversation.ask`: a template of which nothing comes hangs, and is ended."""
        try:
            return self._talk.ask(number, told, wait_s)
        except TimeoutError:
            process = self._process
            if process is not None:
                process.kill()
            raise ModelLoadError(f"nothing came of it within {ANSWERS_WITHIN_S:g} s") from None

    def _is_open(self, number: int) -> None:
        """A template has opened a model: from now on each one does, and none needs care."""
        if number in self._open:
            self._open[number] = self._open[number]._replace(careful=False)

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
        limit_s = monotonic() + ENDS_WITHIN_S
        while not all(slot.is_settled for slot in self.slots):
            if self._stopped or monotonic() > limit_s:
                break
            await asyncio.sleep(LOOKS_EVERY_S)
        return wanted

    def _template_ended(self) -> None:
        logger.error("the process that opens models has ended; it is started again, and all executors with it")
        self._forget_template()
        if not self._stopped and self._restarting is None:
            self._settled.clear()
            self._restarting = self._loop.create_task(self._restart())
        self._talk.fail_waiting("the process that opened it ended")
        self._talk.end_all()

    def _forget_template(self) -> None:
        self._talk.end()
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            # Killed, it ends within a moment: nobody may be left who waits for it.
            process.wait()

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
            if self._talk.is_on:
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
            elif number not in self._open:
                # It was closed meanwhile, which the template may have been told before it had it.
                self._talk.send(Close(number))
