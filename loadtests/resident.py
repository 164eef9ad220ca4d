"""How much memory a gateway has, seen from outside: by what it says, and by what the kernel says of its processes."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import httpx
import psutil

from loadtests.servers import START_LIMIT_S, Server, ServerError, gateway, running
from variants.resident import peak_bytes_of

_SIZE = re.compile(r"^(Pss|Pss_File): +(\d+) kB$", re.MULTILINE)
_RESIDENT = re.compile(r"^pareto_memory_resident_bytes (\S+)$", re.MULTILINE)


def resident_bytes(server: Server) -> int:
    """Resident memory of the process that serves, as it says itself."""
    match = _RESIDENT.search(httpx.get(f"{server.url}/metrics", timeout=30.0).text)
    return int(float(match[1])) if match else 0


def bytes_before_models(models: Path, environment: Mapping[str, str]) -> int:
    """Resident memory of a gateway that has read its families, and taken profiles that were not there, and opened none.

    It is one whose memory budget holds nothing, so it is never ready: it is asked until it says what it has. Raises
    `ServerError` where it does not within `START_LIMIT_S`.
    """
    command = gateway(models, {**environment, "PARETO_MEMORY_BUDGET": "1MiB"})
    with running(replace(command, ready_path="/v2/health/live")) as server:
        limit_s = time.monotonic() + START_LIMIT_S
        while not (found := resident_bytes(server)):
            server.check()
            if time.monotonic() > limit_s:
                raise ServerError(f"{server.name} does not say what memory it has after {START_LIMIT_S:g} s")
            time.sleep(0.1)
        return found


class ResidentWatch:
    """Reads the memory of a gateway again and again, every `every_s` seconds, on a thread of its own.

    `read` reads it, as `resident_of` or `shared_once`; `seen` is called there with the bytes.
    """

    def __init__(self, read: Callable[[], int], every_s: float, seen: Callable[[int], None]) -> None:
        self._read = read
        self._every_s = every_s
        self._seen = seen
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> ResidentWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            self._seen(self._read())


def resident_of(process: psutil.Process) -> int:
    """Resident memory of a process, bytes."""
    return int(process.memory_info().rss)


def most_resident_of(process: psutil.Process) -> int:
    """The most resident memory that a process ever had, as the kernel noted it, bytes; 0 where it does not."""
    return peak_bytes_of(process.pid) or 0


def shared_once(process: psutil.Process) -> int:
    """Resident memory of a process and all that it has started, bytes; what they share counts once.

    As the gateway counts it: of pages of files, which others may have too, no less than the process has itself.
    """
    found = of_files = 0
    for one in (process, *process.children(recursive=True)):
        with suppress(OSError):
            said = dict(_SIZE.findall(Path(f"/proc/{one.pid}/smaps_rollup").read_text()))
            part = int(said.get("Pss_File", 0))
            of_files += part
            found += int(said.get("Pss", 0)) - part
    return 1024 * found + max(1024 * of_files, int(process.memory_info().shared))


def serving_process(server: Server) -> psutil.Process:
    """The one of its processes that has the models."""
    (worker,) = [p for p in server.tree() if any("worker.service" in argument for argument in p.cmdline())]
    return worker
