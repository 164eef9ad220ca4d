"""What gateway and template say to each other, as the gateway has it: questions, answers, and ends of executors."""

from __future__ import annotations

import asyncio
import logging
import pickle
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from time import monotonic, sleep
from typing import Any, NamedTuple

import orjson

from service.paths import NotNowError
from service.processes.messages import MOST_BYTES, ToTemplate

logger = logging.getLogger("pareto.executors")

ANSWERS_WITHIN_S = 300.0
"""A template that opens a model for longer hangs, and is ended."""
ASKS_AGAIN_S = 0.02
TEMPLATE_ENDED = "ended with the process that opens models"
NO_TEMPLATE = "could not be made: there was no process that opens models"
AGAIN = "again"
"""A key of what is said of a model that nobody has opened, though it may be sound: the next template may be asked."""


class End(NamedTuple):
    """How an executor ended: in words, and by which signal (0: by none)."""

    said: str
    signal: int


class Conversation:
    """With one template after another. Methods run on the event loop's thread but where they say otherwise.

    `opened` is called with the number of each model that a template has opened, `lost` when a template has ended.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, opened: Callable[[int], None], lost: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._opened = opened
        self._lost = lost
        self._sending = threading.Lock()
        self._waiting: dict[int, Future[dict[str, Any]]] = {}
        self._ends: dict[int, Callable[[End], None]] = {}
        self._control: socket.socket | None = None
        self.is_over = False
        """Whether no other template will come."""

    @property
    def is_on(self) -> bool:
        """Whether there is a template."""
        return self._control is not None

    def begin(self, control: socket.socket) -> None:
        """Talk to a template over this socket."""
        self._control = control
        control.setblocking(False)
        self._loop.add_reader(control.fileno(), self._read)

    def end(self) -> None:
        """Talk to it no more."""
        with self._sending:
            control, self._control = self._control, None
        if control is not None:
            self._loop.remove_reader(control.fileno())
            control.close()

    def expect_end(self, executor: int, ended: Callable[[End], None]) -> None:
        """Have `ended` called when an executor is no more; on any thread."""
        self._ends[executor] = ended

    def send(self, told: ToTemplate, files: list[int] | None = None) -> bool:
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

    def ask(self, number: int, told: ToTemplate, wait_s: float) -> dict[str, Any]:
        """What the template answers; where there is none, the next one that comes within `wait_s`.

        On any other thread. Raises `TimeoutError` where nothing comes of it, `NotNowError` where nobody is there.
        """
        limit_s = monotonic() + wait_s
        while True:
            own: Future[dict[str, Any]] = Future()
            # Two may ask for the same model: who wants it, and whoever has a new template open all that there are.
            answer = self._waiting.setdefault(number, own)
            try:
                if self.send(told):
                    return answer.result(ANSWERS_WITHIN_S)
            finally:
                if self._waiting.get(number) is own:
                    del self._waiting[number]
            if self.is_over or monotonic() > limit_s:
                raise NotNowError("there is no process that opens models")
            sleep(ASKS_AGAIN_S)

    def ended(self, executor: int, end: End) -> None:
        """Tell whoever is to know of the end of an executor; once."""
        told = self._ends.pop(executor, None)
        if told is None:
            return
        try:
            told(end)
        except Exception:
            # One slot's trouble keeps neither others from being told nor another template from being started.
            logger.exception("who was told of the end of an executor failed on it")

    def end_all(self) -> None:
        """All executors have ended with their template."""
        for executor in list(self._ends):
            self.ended(executor, End(TEMPLATE_ENDED, 0))

    def fail_waiting(self, why: str) -> None:
        """Nothing comes any more of what was asked."""
        waiting, self._waiting = self._waiting, {}
        for answer in waiting.values():
            answer.set_result({"error": why, AGAIN: True})

    def _read(self) -> None:
        while self._control is not None:
            try:
                message = self._control.recv(MOST_BYTES)
            except BlockingIOError:
                return
            except ConnectionResetError:
                message = b""
            if not message:
                self._lost()
                return
            what, number, *said = orjson.loads(message)
            if what == "ended":
                self.ended(number, End(*said))
            elif (answer := self._waiting.pop(number, None)) is not None:
                if "error" not in said[0]:
                    # Before anybody learns of it: the next template has to know.
                    self._opened(number)
                answer.set_result(said[0])
