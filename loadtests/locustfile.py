"""The generator as a worker of locust's: on this machine `pareto loadtest --workers N` starts some, on others you do.

    locust -f loadtests/locustfile.py --worker --master-host HOST --master-port PORT

The other end is `pareto loadtest URL --workers N --listen 0.0.0.0:PORT`, which plans, merges and judges.
"""

from __future__ import annotations

import sys
from typing import Any

from locust import events
from locust.env import Environment
from locust.runners import Runner, WorkerRunner

from loadtests.harness.generator import observing
from loadtests.harness.user import OpenLoopUser
from loadtests.harness.workers import Worker

__all__ = ["OpenLoopUser"]
CANNOT_START = 2


def attend(environment: Environment, runner: Runner, **_: Any) -> None:
    """Do what the master says."""
    if not isinstance(runner, WorkerRunner):
        sys.stderr.write("loadtest: only workers are started like this (--worker); `pareto loadtest` starts the rest\n")
        raise SystemExit(CANNOT_START)
    Worker(runner, observing(environment))


events.init.add_listener(attend)
