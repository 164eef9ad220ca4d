"""`bentoml serve` as a child process: its settings, its readiness, its signals and its end."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self
from urllib.parse import quote

import psutil

from service.addresses import connection
from service.configuration import OTHER_VARIABLES
from service.interrupts import INTERRUPTED
from service.log_words import NOTHING
from service.server_log import ServerLog
from service.settings import PREFIX, Settings

ROOT = Path(__file__).resolve().parent.parent
"""Where the package `service` lies: BentoML imports it from there."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)
WORKER = "_bentoml_impl.worker"
"""In the command line of the processes that serve."""
READY_PATH = "/v2/health/ready"
PROBE_EVERY_S = 0.1
PROBE_LIMIT_S = 2.0
STOP_MARGIN_S = 15.0
"""On top of the time that it may take to drain, before a server that does not end is killed."""


class ServerDiedError(Exception):
    """The server ended, or cannot serve, without having been asked to end. The message is one line."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class SupervisedServer:
    """A server with exactly these settings; a context manager that does not leave it running.

    SIGINT and SIGTERM are handed on to it, SIGHUP to the process that serves. Its log goes to the error output. One
    that is told to end before it was ready ends without a word. Enter it in the main thread.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._end_limit_s = settings.lame_duck_s + settings.drain_s + STOP_MARGIN_S
        # What it says of an end in the middle of its start is of no use to who asked for it.
        self._log = ServerLog(settings.log_level, lambda: self._was_ready or not self.stopping)
        self._workers: list[psutil.Process] = []
        self._kill_timer: threading.Timer | None = None
        self.stopping = False
        """Whether a signal asked for the end."""
        self._asked_by: int | None = None
        self._started = self._was_ready = False

    def __enter__(self) -> Self:
        # Before there is a process: it would be left behind by a signal that came between the two.
        self._previous = {number: signal.signal(number, self._hand_on) for number in SIGNALS}
        self._previous[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._reload)
        self._process = subprocess.Popen(
            server_command(self._settings),
            cwd=ROOT,
            env=server_environment(self._settings),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            # A group of its own: Ctrl-C reaches it once, through the handler, and not from the terminal as well.
            start_new_session=True,
        )
        self._started = True
        if self.stopping:
            self._end_early()
        assert self._process.stdout is not None, "it is a pipe"
        self._log.begin(self._process.stdout)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(self._end_limit_s)
            except subprocess.TimeoutExpired:
                self._kill()
        self._process.wait()
        self._kill_workers()
        if self._kill_timer is not None:
            self._kill_timer.cancel()
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def wait_until_ready(self) -> None:
        """Return when the server answers or is being stopped. Raises `ServerDiedError` where it never will."""
        while not self.stopping:
            if self._process.poll() is not None:
                raise self._died("before it was ready")
            status, body = probe(self._settings)
            if status == http.client.OK:
                with suppress(psutil.NoSuchProcess):
                    self._workers = psutil.Process(self._process.pid).children(recursive=True)
                self._was_ready = True
                return
            if NOTHING in body:
                # Who asks over HTTP is not told all of it.
                raise ServerDiedError(self._log.since(NOTHING) or body, exit_code=1)
            time.sleep(PROBE_EVERY_S)

    def lack_of_room(self) -> str:
        """Which families a memory budget has no room for, as the log says it; empty where there are none."""
        return "" if self._settings.memory_budget is None else self._log.lack_of_room()

    def refused(self) -> dict[str, list[str]]:
        """The variants that were refused while it came up, by family, as the log says it."""
        return self._log.refused()

    def wait(self) -> int:
        """The server's exit code, when it ends. Raises `ServerDiedError` where nobody asked it to.

        `INTERRUPTED` where SIGINT came before it was ready.
        """
        self._process.wait()
        if not self.stopping:
            raise self._died("unasked")
        if self._asked_by == signal.SIGINT and not self._was_ready:
            return INTERRUPTED
        return self._exit_code()

    def _hand_on(self, number: int, frame: FrameType | None) -> None:
        if not self.stopping:
            self.stopping, self._asked_by = True, number
            self._kill_timer = threading.Timer(self._end_limit_s, self._kill)
            self._kill_timer.daemon = True
            self._kill_timer.start()
        if not self._started:
            return
        if self._was_ready:
            self._process.send_signal(number)
        else:
            self._end_early()

    def _end_early(self) -> None:
        """End a server that nobody was served by yet.

        By SIGTERM: what has no handler yet ends at once, where Python and BentoML make a traceback or "Aborted!" of
        SIGINT. It is held meanwhile, so that it starts no process that would be left behind.
        """
        if self._process.returncode is not None:
            # It has been waited for: its number may be somebody else's by now.
            return
        pid = self._process.pid
        with suppress(ProcessLookupError, ChildProcessError, psutil.NoSuchProcess):
            os.kill(pid, signal.SIGSTOP)
            os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            self._workers = psutil.Process(pid).children(recursive=True)
        self._process.terminate()
        self._process.send_signal(signal.SIGCONT)

    def _reload(self, number: int, frame: FrameType | None) -> None:
        """To the processes that serve alone: BentoML's arbiter would take it for a wish to start them anew."""
        for worker in self._workers:
            with suppress(psutil.NoSuchProcess):
                if any(WORKER in argument for argument in worker.cmdline()):
                    worker.send_signal(number)

    def _kill(self) -> None:
        sys.stderr.write("pareto: the server did not end in time and is killed\n")
        self._process.kill()
        self._kill_workers()

    def _kill_workers(self) -> None:
        """BentoML's workers have sessions of their own and outlive an arbiter that was killed."""
        for worker in self._workers:
            with suppress(psutil.NoSuchProcess):
                worker.kill()

    def _died(self, when: str) -> ServerDiedError:
        last = self._log.last_line() or "it said nothing"
        code = self._exit_code()
        return ServerDiedError(f"the server ended {when}, with exit code {code}: {last}", code or 1)

    def _exit_code(self) -> int:
        """As a shell says it: 128 and the signal's number for a process that a signal ended."""
        code = self._process.returncode
        return code if code >= 0 else 128 - code


def server_command(settings: Settings) -> list[str]:
    """The command that serves."""
    command = [sys.executable, "-m", "bentoml", "serve", "service.bento:svc", "--working-dir", str(ROOT)]
    keep_alive = ["--timeout-keep-alive", str(settings.keep_alive_s)]
    tls = [
        argument
        for name in ("ssl_certfile", "ssl_keyfile")
        if (path := getattr(settings, name)) is not None
        for argument in (f"--{name.replace('_', '-')}", str(path.absolute()))
    ]
    return [*command, "--host", settings.host, "--port", str(settings.port), *keep_alive, *tls]


def server_environment(settings: Settings) -> dict[str, str]:
    """This process's environment, with these settings in place of whatever variables and file named before."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith(PREFIX) or name.upper() in OTHER_VARIABLES
    }
    own = {"BENTOML_DO_NOT_TRACK": "True", "PYTHONUNBUFFERED": "1"}
    return inherited | own | settings.environment()


def probe(settings: Settings, path: str = READY_PATH) -> tuple[int, str]:
    """Status of a path, by default that of readiness, and what it says; 0 where nothing answers."""
    asked = connection(settings.host, settings.port, PROBE_LIMIT_S, tls=settings.ssl_certfile is not None)
    try:
        asked.request("GET", path)
        response = asked.getresponse()
        body = response.read(4096).decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return 0, ""
    finally:
        asked.close()
    try:
        return response.status, str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return response.status, body


def fault_of(settings: Settings, family: str) -> str:
    """Why the server takes no requests for a family; empty where it does or does not say, as where it wants a key."""
    status, said = probe(settings, f"/v2/models/{quote(family, safe='')}/ready")
    if status == http.client.SERVICE_UNAVAILABLE:
        return said or f"{family} is not ready"
    return f"{family} cannot be loaded: see the log" if status == http.client.NOT_FOUND else ""
