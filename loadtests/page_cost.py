"""What the gateway's page costs its server: processor time per open tab (`make page-cost`).

A gateway answers the same light traffic while no tab and then so many tabs read the stream, in turns; processor seconds
of its processes are counted, not wall time, so that a busy machine changes little. Tabs are sockets that read: what a
browser draws is the visitor's own. Counting is in `make bench-profile`.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from loadtests.fetch import fetch
from loadtests.samples import Samples, read_samples
from loadtests.sender import Sender, prepared
from loadtests.servers import Server, gateway, running
from loadtests.traces import Shape, arrivals
from loadtests.workload import SloMix, Workload
from variants.repository import Repository

RATE = 50.0


class Tab:
    """An open stream that is read and thrown away."""

    def __init__(self, url: str, family: str) -> None:
        at = urlsplit(url)
        self._socket = socket.create_connection((at.hostname, at.port), timeout=30.0)
        self._socket.sendall(f"GET /events?family={family} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        self.bytes = 0
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            while data := self._socket.recv(65536):
                self.bytes += len(data)
        except OSError:
            return

    def close(self) -> None:
        """Hang up."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def seconds_of(server: Server) -> float:
    """Processor seconds that all its processes have taken."""
    return float(sum(sum(process.cpu_times()[:2]) for process in server.tree()))


def turn(server: Server, samples: Samples, tabs: int, span_s: float, seed: int) -> tuple[float, float]:
    """Processor seconds a second of the server with so many tabs open, and bytes a second that each tab got."""
    at = urlsplit(server.url)
    rng = np.random.default_rng(seed)
    workload = Workload.draw(
        arrivals("poisson", RATE, span_s, Shape(), rng), SloMix((0.2,), (1.0,)), len(samples), rng, ""
    )
    sender = Sender(at.hostname or "", at.port or 0, prepared(workload, samples, at.netloc))
    open_tabs = [Tab(server.url, samples.family) for _ in range(tabs)]
    time.sleep(1.0)
    before_s, began_s = seconds_of(server), time.monotonic()
    sent = sum(tab.bytes for tab in open_tabs)
    sender.run(workload)
    took_s = time.monotonic() - began_s
    used_s = seconds_of(server) - before_s
    received = sum(tab.bytes for tab in open_tabs) - sent
    for tab in open_tabs:
        tab.close()
    return used_s / took_s, received / took_s / max(1, tabs)


def main() -> None:
    """Measure and print one line for each number of tabs."""
    parser = argparse.ArgumentParser(prog="page_cost", description="what open tabs of the page cost the server")
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--family", default="digits")
    parser.add_argument("--tabs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    samples = read_samples(Repository(options.models).open(options.family))
    rounds = []
    with running(gateway(options.models)) as server:
        fetch(f"{server.url}/", timeout_s=5.0)
        for seed in range(options.rounds):
            none, _ = turn(server, samples, 0, options.seconds, seed)
            some, received = turn(server, samples, options.tabs, options.seconds, seed)
            rounds.append(((some - none) / options.tabs, none, received))
            sys.stdout.write(
                f"round {seed + 1}: {none:.2%} of a core without tabs, {some:.2%} with {options.tabs}: "
                f"{rounds[-1][0]:.3%} a tab, {received / 1024:.1f} KiB/s each\n"
            )
    per_tab = [one for one, *_ in rounds]
    sys.stdout.write(
        f"a tab: {statistics.median(per_tab):.3%} of a core ({min(per_tab):.3%} to {max(per_tab):.3%}), "
        f"at {RATE:g} requests/s\n"
    )


if __name__ == "__main__":
    main()
