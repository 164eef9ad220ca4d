"""What tests of `pareto loadtest` ask of the stand-in for the gateway, and how they start the command."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from loadtests.harness.rows import from_gateway
from loadtests.harness.subject import Member, Subject
from loadtests.harness.target import Target
from loadtests.servers import ROOT, Server
from loadtests.workload import SloMix

PASSED_OR_INVALID, MISSED_OR_INVALID = (0, 3), (4, 3)


def asking(server: Server, family: str = "tiny", slo_ms: str = "5000") -> Subject:
    """One family of the server, with the rows that it shows."""
    target = Target(server.url)
    served = target.served(family)
    stock = from_gateway(target, served)
    assert stock is not None
    return Subject(target, (Member(served, stock, SloMix.parse(slo_ms)),))


def command(server: Server | str, *flags: str) -> list[str]:
    """The arguments of `pareto`."""
    return ["loadtest", server if isinstance(server, str) else server.url, *flags]


@contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """`pareto` as a process of its own, which does not outlive the test."""
    program = [sys.executable, "-m", "service.cli", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(program, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        # Its generators end when it does: their end of the link is closed.
        process.kill()
        process.communicate()
