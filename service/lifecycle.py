"""Start and end of a replica: load while alive but not ready; on SIGTERM leave, finish what was accepted, then exit.

It leaves in two steps: first it says that it is not ready and goes on taking requests, a lame duck, until load
balancers have seen it; then it refuses new ones. uvicorn closes its sockets as soon as it sees the signal, which would
leave callers with refused connections instead of a clear 503; so the signal is taken first and handed on to uvicorn
when the last accepted request has its outcome.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from types import FrameType
from typing import Any, Protocol

from service.exchange import Message, Receive, Scope, Send
from service.gateway import Gateway, Phase
from service.oip.errors import ProtocolError

logger = logging.getLogger("pareto.lifecycle")

SIGNALS = (signal.SIGTERM, signal.SIGINT)

Inner = Callable[[Scope, Receive, Send], Awaitable[None]]
Previous = Callable[[int, FrameType | None], Any] | int | None


class Listener(Protocol):
    """Another way in, open from before the families are loaded until the last accepted request has its outcome."""

    async def open(self) -> None:
        """Raises `OSError` whose text names the setting that is in the way."""

    async def close(self, drained: Awaitable[None]) -> None:
        """Close it, as nothing new is taken, and lose nothing of what was: that has its outcome once `drained`."""


class Lifecycle:
    """Wraps the ASGI lifespan of BentoML's app with the gateway's own.

    `changed` is called when the gateway may have another phase than before.
    """

    def __init__(
        self, gateway: Gateway, listeners: Sequence[Listener] = (), changed: Callable[[], None] = lambda: None
    ) -> None:
        self._gateway = gateway
        self._listeners = listeners
        self._changed = changed
        self._loading: asyncio.Task[None] | None = None
        self._draining: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self._leaving: asyncio.Task[None] | None = None
        self._previous: dict[int, Previous] = {}
        self._signals = 0
        self._reload: Callable[[], Awaitable[object]] | None = None
        self._reloading: set[asyncio.Task[None]] = set()

    async def run(
        self,
        inner: Inner,
        scope: Scope,
        receive: Receive,
        send: Send,
        loaded: Callable[[], None],
        reload: Callable[[], Awaitable[object]],
    ) -> None:
        """Serve the lifespan protocol; `loaded` is called once the families are there, `reload` at a SIGHUP."""
        self._reload = reload

        async def start_with_inner() -> Message:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self._loading = asyncio.create_task(self._load(loaded))
                self._take_signals()
            elif message["type"] == "lifespan.shutdown":
                await self._drain()
            return message

        await inner(scope, start_with_inner, send)

    async def _load(self, loaded: Callable[[], None]) -> None:
        try:
            for listener in self._listeners:
                await listener.open()
        except OSError as error:
            self._gateway.broke(error.strerror or str(error))
            logger.error("nothing is served: %s", error.strerror)
            return
        try:
            await self._gateway.start()
            loaded()
        except Exception as error:
            self._gateway.broke(f"{type(error).__name__}: {error}")
            logger.exception("loading failed")
        self._changed()

    async def _drain(self) -> None:
        self._say_leaving()
        if self._draining is None:
            self._draining = asyncio.create_task(self._end())
        await self._draining

    async def _end(self) -> None:
        drained = asyncio.ensure_future(self._gateway.drain())
        await asyncio.gather(drained, *(listener.close(drained) for listener in self._listeners))

    async def _leave(self) -> None:
        """Be a lame duck, then drain."""
        gateway = self._gateway
        self._say_leaving()
        if gateway.phase is Phase.READY:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), gateway.settings.lame_duck_s)
        await self._drain()

    def _say_leaving(self) -> None:
        self._gateway.leaving = True
        self._changed()

    def _take_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            self._previous[number] = signal.getsignal(number)
            try:
                signal.signal(number, lambda number, frame: loop.call_soon_threadsafe(self._signalled, number))
            except ValueError:
                # Not the main thread: whoever runs the loop there handles signals.
                self._previous.pop(number)
                return
        signal.signal(signal.SIGHUP, lambda number, frame: loop.call_soon_threadsafe(self._hung_up))

    def _hung_up(self) -> None:
        # The event loop alone does not keep a task; two signals may come at once.
        task = asyncio.create_task(self._reload_settings())
        self._reloading.add(task)
        task.add_done_callback(self._reloading.discard)

    async def _reload_settings(self) -> None:
        try:
            assert self._reload is not None, "set before signals are taken"
            await self._reload()
        except (ProtocolError, OSError) as error:
            # What is wrong with them is theirs to see who sent the signal; requests go on.
            logger.error("SIGHUP: %s", error)
        except Exception:
            logger.exception("SIGHUP: settings could not be read again")

    def _signalled(self, number: int) -> None:
        """The first signal drains; a second one fails what is left and does not wait."""
        self._signals += 1
        if self._signals > 1:
            logger.warning("signal %s again: not waiting any longer", signal.Signals(number).name)
            self._hurry.set()
            self._gateway.abandon()
            self._hand_on(number)
            return
        logger.info("signal %s: leaving, then draining", signal.Signals(number).name)
        self._leaving = asyncio.create_task(self._leave())
        self._leaving.add_done_callback(lambda _: self._hand_on(number))

    def _hand_on(self, number: int) -> None:
        previous = self._previous.get(number)
        if callable(previous):
            previous(number, None)
        elif previous is not None:
            signal.signal(number, previous)
            signal.raise_signal(number)
