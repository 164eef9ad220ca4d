"""The memory of gateway, template and executors together, for a budget that is held against all of them."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import psutil

from service.memory import resident_together
from service.processes.copies import survives_a_fork
from service.processes.host import Host
from service.processes.models import HostedOpener
from variants.manifest import VariantManifest
from variants.resident import give_back

NEW_EXECUTOR_BYTES = 3_000_000
"""What an executor takes of its own before it has run anything."""
TRIED_BYTES = 20_000_000
"""What a process takes of its own in which a model is opened first, or tried: 17 to 20 MB (`docs/log.md`)."""


class HostedFootprint:
    """See `service.footprint.Footprint`. Models are opened in the template; `give_back` exchanges all executors.

    An executor is a copy of the template: as long as there is one that was made before a model was closed, the model is
    in memory.
    """

    def __init__(self, host: Host) -> None:
        self.open_one = HostedOpener(host)
        self._host = host

    def warm(self) -> None:
        """See `Footprint`. The template has done it when it began, or will have when it can open anything."""

    def reserve_bytes(self, slots: int, batch_bytes: int) -> int:
        """See `Footprint`."""
        return reserve_bytes(slots, batch_bytes)

    def resident_bytes(self) -> int:
        """See `Footprint`."""
        processes = [os.getpid()]
        if template := self._host.process:
            processes += [template, *_children(template)]
        return resident_together(processes)

    def models_bytes(self) -> int:
        """See `Footprint`: as the template says. Who waits for executors meanwhile adds nothing to that."""
        return self.open_one.gained_bytes

    def give_back(self) -> None:
        """See `Footprint`."""
        self._host.exchange()
        # Tokenizers are in this process.
        give_back()

    def tidy(self) -> None:
        """See `Footprint`. They are opened and tried elsewhere."""

    @property
    def kept_bytes(self) -> int:
        """See `Footprint`. What executors share with the template cannot be used again while one of them is there."""
        return 0

    def keep_at_most(self, most_bytes: int) -> None:
        """See `Footprint`."""

    def lack(self, variant: VariantManifest) -> str:
        """See `Footprint`."""
        return lack_under_a_budget(variant)


def reserve_bytes(slots: int, batch_bytes: int) -> int:
    """See `Footprint`. While two executors change places a slot has both, and both have what a batch takes."""
    return (NEW_EXECUTOR_BYTES + batch_bytes) * slots + TRIED_BYTES


def lack_under_a_budget(variant: VariantManifest) -> str:
    """Why a variant cannot be served by `processes` under a budget, in one line; empty where it can."""
    if survives_a_fork(variant.runtime, threads=1):
        return ""
    return (
        f"{variant.name}: on {variant.runtime} each executor would open it anew and have it in memory for itself: "
        "`processes` do not serve it under a memory_budget"
    )


def _children(process: int) -> list[int]:
    """The processes that were made by one that has a single thread."""
    with suppress(OSError, ValueError):
        return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    with suppress(psutil.Error):
        return [child.pid for child in psutil.Process(process).children()]
    return []
