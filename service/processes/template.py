"""The process that opens models and runs none: executors are copies of it (`python -m service.processes.template`).

It has one thread, so a copy of it is whole; onnxruntime with one thread for each batch has no others. What does have
threads of its own is opened by each executor anew, after it was copied, see `survives_a_fork`.
"""

from __future__ import annotations

import gc
import os
import pickle
import selectors
import signal
import socket
import sys
from contextlib import suppress
from functools import partial
from typing import Any

import orjson

from service.processes.copies import HANGS, Copies, be_called, end_with, survives_a_fork
from service.processes.executor import execute
from service.processes.messages import KILLED, MOST_BYTES, NOT_NOW, Close, Fork, Kill, Open, ToTemplate
from variants.resident import give_back
from variants.runtimes.onnxruntime_cpu import warm
from variants.session import Session, open_session

FILES_OF_AN_EXECUTOR = 3
OPENS_WITHIN_S = 120.0
"""A model that is opened in a process of its own hangs after so long."""


class Template:
    """The models that are open, and the executors that were made; `control` leads to the gateway."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ)
        self._models: dict[int, Session] = {}
        self._late: dict[int, Open] = {}
        self._executors: dict[int, int] = {}
        """Process numbers, by executor. A process is not waited for before its executor is taken out of here."""
        self._copies = Copies(self._selector, control.close)

    def run(self) -> None:
        """Do as told until the gateway is gone. Nothing here waits for a process: it is told of the end of each."""
        while True:
            for key, _ in self._selector.select(self._copies.until_late_s()):
                if key.fileobj is not self._control:
                    self._copies.ended(key.fd)
                    continue
                try:
                    message, files, _, _ = socket.recv_fds(self._control, MOST_BYTES, FILES_OF_AN_EXECUTOR)
                except ConnectionError:
                    # It went before it had read all that it was told.
                    return
                if not message:
                    return
                self._obey(pickle.loads(message), files)  # noqa: S301 - the gateway started this process
            self._copies.end_late_ones()

    def _obey(self, told: ToTemplate, files: list[int]) -> None:
        match told:
            case Open():
                self._open(told)
            case Close(number):
                self._late.pop(number, None)
                if (model := self._models.pop(number, None)) is not None:
                    model.close()
                    give_back()
                self._say("opened", number, {})
            case Fork():
                self._fork(told, files)
            case Kill(executor):
                if executor in self._executors:
                    os.kill(self._executors[executor], signal.SIGKILL)

    def _open(self, wanted: Open) -> None:
        """Open a model, in a process of its own first where that is wanted; the gateway is told what came of it."""
        if wanted.careful or not _survives(wanted):
            self._open_apart(wanted)
        else:
            self._open_here(wanted)

    def _open_here(self, wanted: Open) -> None:
        said, model = _opened(wanted)
        if model is not None:
            self._models[wanted.number] = model
            # Nothing that there is now is looked at for garbage again: that would write to it, and unshare it.
            gc.collect()
            gc.freeze()
        self._say("opened", wanted.number, said)

    def _open_apart(self, wanted: Open) -> None:
        """Have a model opened by a process of its own, which ends at once; what it says outlives it."""
        try:
            file = os.memfd_create("pareto-opened")
        except OSError as error:
            self._not_opened(wanted, error)
            return

        def work() -> None:
            be_called("pareto-open")
            os.write(file, orjson.dumps(_opened(wanted)[0]))

        try:
            self._copies.make(work, partial(self._opened_apart, wanted, file), OPENS_WITHIN_S)
        except OSError as error:
            os.close(file)
            self._not_opened(wanted, error)

    def _not_opened(self, wanted: Open, error: OSError) -> None:
        said = {"error": f"{wanted.path}: no process to open it: {error.strerror}", NOT_NOW: True}
        self._say("opened", wanted.number, said)

    def _opened_apart(self, wanted: Open, file: int, how: str, by: int) -> None:
        try:
            said = dict(orjson.loads(os.pread(file, MOST_BYTES, 0)))
        except ValueError:
            # It came to nothing.
            said = {"error": f"{wanted.path}: cannot be opened as a model: the process that opened it {how}"}
            if by == signal.SIGKILL and how != HANGS:
                said[KILLED] = True
        finally:
            os.close(file)
        if "error" in said:
            self._say("opened", wanted.number, said)
        elif _survives(wanted):
            self._open_here(wanted)
        else:
            self._late[wanted.number] = wanted
            self._say("opened", wanted.number, said)

    def _fork(self, told: Fork, files: list[int]) -> None:
        def work() -> None:
            if told.name:
                be_called(told.name)
            if told.cores:
                os.sched_setaffinity(0, told.cores)
            models = dict(self._models)
            for number, wanted in self._late.items():
                # A model that is tried waits for no other one, nor a device for those of another one.
                if told.only not in (None, number) or told.threads not in (None, wanted.options.threads):
                    continue
                said, model = _opened(wanted)
                if model is None:
                    sys.stderr.write(f"{said['error']}\n")
                else:
                    models[number] = model
            execute(socket.socket(fileno=files[0]), files[1:], models)

        try:
            self._executors[told.executor] = self._copies.make(work, partial(self._executor_ended, told.executor))
        except OSError as error:
            # No memory or no processes left, for now: as if it had ended at once.
            self._say("ended", told.executor, f"could not be made: {error.strerror}", 0)
        finally:
            for file in files:
                os.close(file)

    def _executor_ended(self, executor: int, how: str, by: int) -> None:
        del self._executors[executor]
        self._say("ended", executor, how, by)

    def _say(self, *what: object) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):
            self._control.send(orjson.dumps(what))


def _survives(wanted: Open) -> bool:
    return survives_a_fork(wanted.runtime, wanted.options.threads)


def _opened(wanted: Open) -> tuple[dict[str, Any], Session | None]:
    """What is to be said of a model, and the model; none where it cannot be opened."""
    try:
        model = open_session(wanted.path, wanted.options, wanted.tables, wanted.runtime)
    except Exception as error:  # noqa: BLE001 - it is for the gateway to say what becomes of it
        return {"error": " ".join(str(error).split())[:1000] or type(error).__name__}, None
    said = {
        "input_names": model.input_names,
        "output_names": model.output_names,
        "load_s": model.load_s,
        "memory_bytes": model.memory_bytes,
    }
    return said, model


def main(arguments: list[str]) -> None:
    """Serve the gateway whose process number is the second argument, over the socket whose file is the first."""
    control, gateway = int(arguments[0]), int(arguments[1])
    end_with(gateway)
    be_called("pareto-template")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # The gateway drains; executors must work on meanwhile, and end with it.
        signal.signal(number, signal.SIG_IGN)
    # Else each process in which a model is tried before the first one is there would take it for itself.
    warm()
    Template(socket.socket(fileno=control)).run()


if __name__ == "__main__":
    main(sys.argv[1:])
