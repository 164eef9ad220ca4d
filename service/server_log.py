"""The log of a server that is a child process: passed on to the error output, and noted for who has started it."""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable

from service.log_words import LEAVES, NO_ROOM, READY, REFUSED

_REFUSED = re.compile(REFUSED % (r"(\S+)", r"(\S+)", ""))
LIMIT_S = 1.0
"""For a line of the log that was written before an answer to be there, too."""
LOOK_EVERY_S = 0.1


class ServerLog:
    """Lines of a log with that `log_level`, copied while `is_shown`; what they tell of the start is for the banner."""

    def __init__(self, log_level: str, is_shown: Callable[[], bool]) -> None:
        self._is_shown = is_shown
        self._last_lines: deque[str] = deque(maxlen=20)
        self._room = ""
        self._refused: dict[str, list[str]] = {}
        # Where it tells no more than what is wrong, it does not say that it is ready.
        self._said_ready = log_level in ("warning", "error")
        self._is_noting = True
        self._thread: threading.Thread | None = None

    def begin(self, lines: Iterable[str]) -> None:
        """Read these to their end, on a thread."""
        self._thread = threading.Thread(target=self._copy, args=(lines,), name="server-log", daemon=True)
        self._thread.start()

    def lack_of_room(self) -> str:
        """Which families a memory budget has no room for; empty where there are none."""
        self._wait_for_ready()
        return self._room if NO_ROOM in self._room else ""

    def refused(self) -> dict[str, list[str]]:
        """The variants that were refused until now, by family. What comes later is not noted."""
        self._wait_for_ready()
        self._is_noting = False
        return {name: list(variants) for name, variants in list(self._refused.items())}

    def since(self, words: str) -> str | None:
        """What one of the last lines says from these words on; None where none does."""
        limit_s = time.monotonic() + LIMIT_S
        while time.monotonic() < limit_s:
            for line in reversed(list(self._last_lines)):
                _, found, rest = _message(line).partition(words)
                if found:
                    return found + rest
            time.sleep(LOOK_EVERY_S)
        return None

    def last_line(self) -> str | None:
        """The last one that is not empty, of a server that has ended; None where there is none."""
        if self._thread is not None:
            self._thread.join(LIMIT_S)
        return next((line for line in reversed(list(self._last_lines)) if line), None)

    def _wait_for_ready(self) -> None:
        """For the line behind all that is said of the start."""
        limit_s = time.monotonic() + LIMIT_S
        while not self._said_ready and time.monotonic() < limit_s:
            time.sleep(LOOK_EVERY_S)

    def _copy(self, lines: Iterable[str]) -> None:
        for line in lines:
            self._last_lines.append(line.strip())
            if self._is_noting:
                self._note(_message(line.strip()))
            if self._is_shown():
                sys.stderr.write(line)

    def _note(self, message: str) -> None:
        if found := _REFUSED.search(message):
            family, variant = found.groups()
            self._refused.setdefault(family, []).append(variant)
        self._room = self._room or "".join(message.partition(LEAVES)[1:])
        self._said_ready = self._said_ready or READY in message


def _message(line: str) -> str:
    """A line of the log without what stands around it where the log is JSON."""
    try:
        return str(json.loads(line)["message"])
    except (ValueError, KeyError, TypeError):
        return line
