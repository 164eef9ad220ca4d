"""A server that does on each connection what its script says, so that it is known what a client must make of it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
REQUEST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"

Step = bytes | None
"""After a request: these bytes, or None to close without a word."""


@dataclass
class Scripted:
    """`scripts` has the steps of each connection, in the order of their coming; behind the last step it closes."""

    scripts: Sequence[Sequence[Step]]
    url: str = ""
    requests: list[int] = field(default_factory=list)
    """For each request that came, the number of its connection."""
    closed: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    """Released when a connection has been closed on this side."""

    def serve(self, listening: socket.socket) -> None:
        """Until the listening socket is closed."""
        for number, script in enumerate(self.scripts):
            try:
                accepted, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=self._follow, args=(number, accepted, script), daemon=True).start()

    def _follow(self, number: int, accepted: socket.socket, script: Sequence[Step]) -> None:
        with accepted, suppress(OSError):
            for step in script:
                received = b""
                while b"\r\n\r\n" not in received:
                    data = accepted.recv(65536)
                    if not data:
                        return
                    received += data
                self.requests.append(number)
                if step is None:
                    break
                accepted.sendall(step)
        self.closed.release()


@contextmanager
def scripted(*scripts: Sequence[Step]) -> Iterator[Scripted]:
    """A server with those scripts."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = Scripted(scripts, f"http://127.0.0.1:{listening.getsockname()[1]}")
        threading.Thread(target=server.serve, args=(listening,), daemon=True).start()
        yield server
        listening.shutdown(socket.SHUT_RDWR)


def outcomes(ask: Callable[[], object], times: int) -> list[str]:
    """What comes of asking so often: `answer`, or the exception's message."""
    found = []
    for _ in range(times):
        try:
            ask()
        except Exception as error:  # noqa: BLE001 - its message is what is compared
            found.append(str(error))
        else:
            found.append("answer")
    return found
