"""Executors in processes of their own, as the gateway has them: put together here, and ended together."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from time import monotonic

from router.contract import Slot
from service.executors import MakeSlots, SlotEvents
from service.loaded_family import LoadedFamily
from service.processes.footprint import HostedFootprint
from service.processes.host import BEGINS_WITHIN_S, Host
from service.processes.slot import SlotProcess

UP_WITHIN_S = BEGINS_WITHIN_S


class Processes:
    """To be made on the event loop. Raises `OSError` where no process can be started."""

    def __init__(self, slot_cores: Collection[int] = ()) -> None:
        self._host = Host(slot_cores)
        self._slots: list[SlotProcess] = []
        self.footprint = HostedFootprint(self._host)
        self._host.start()

    def slots(
        self, families: Mapping[str, LoadedFamily], places: Sequence[Slot], cores: Sequence[Sequence[int]]
    ) -> MakeSlots:
        """Slots that run batches in processes of their own, each on its cores where it has some."""

        def make(events: SlotEvents) -> Sequence[SlotProcess]:
            pairs = zip(places, cores, strict=True)
            self._slots = [SlotProcess(place, self._host, families, events, own) for place, own in pairs]
            return self._slots

        return make

    async def are_up(self) -> bool:
        """Wait until each slot has an executor; false where that takes too long."""
        limit_s = monotonic() + UP_WITHIN_S
        while not all(slot.is_up for slot in self._slots):
            if monotonic() > limit_s:
                return False
            await asyncio.sleep(0.005)
        return True

    def stop(self) -> None:
        """End all of them, at once."""
        self._host.stop()
