"""Replicas that end under open-loop load, killed or asked to: what becomes of the requests."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from loadtests.fleet import DOWN, UP, Fleet
from loadtests.fleet_load import load
from loadtests.samples import Samples
from loadtests.servers import ServerError

RATE = 100.0
"""Requests a second: what is asked is what becomes of each, not how many there can be."""
PATIENT_S = 20.0
"""The SLO: nobody is refused for want of time."""


def ended(running: Fleet, samples: Samples, variant: str) -> dict[str, dict[str, int]]:
    """A replica killed, one drained and back, all restarted in turn: what became of requests for this variant."""
    found = {}

    def killed() -> None:
        running.replicas[1].kill()
        running.wait_for(DOWN, running.replicas[1])
        running.replicas[1].restart()
        running.wait_for(UP)

    def restarted(which: slice) -> None:
        for replica in running.replicas[which]:
            code = replica.stop()
            if code != 0:
                raise ServerError(f"{replica.name} ended with exit code {code}")
            replica.restart()
            running.wait_for(UP, replica)

    one, all_of_them = partial(restarted, slice(1)), partial(restarted, slice(None))
    for name, happening in (("killed", killed), ("drained", one), ("restarted in turn", all_of_them)):
        running.wait_for(UP)
        before = running.front.counted()
        with load(running, samples, f"{name.split()[0]}-", RATE, PATIENT_S, variant) as sent:
            happening()
        counted = running.front.counted().since(before)
        statuses = list(sent.statuses.values())
        found[name] = {
            "sent": len(statuses),
            "not answered": statuses.count(0),
            "answered with an error": sum(not 200 <= status < 300 for status in statuses if status),
            "sent again by the client": sent.sender.repeated,
            "sent again by HAProxy": counted.repeated,
            "sent to another replica by HAProxy": counted.moved,
        }
    return found


def told(found: Mapping[str, Mapping[str, int]]) -> str:
    """What `ended` found, a line each."""
    lines = (f"{name}: " + ", ".join(f"{count} {what}" for what, count in own.items()) for name, own in found.items())
    return "\n".join(lines)
