"""Settings of one device: slots that are alike, of so many threads each, perhaps on processor cores of their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from router.contract import Slot
from service.scoped_settings import Cores


class DeviceSettings(BaseModel):
    """One device by its name; the descriptions are the reference that users read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threads: int = Field(
        default=1, ge=1, le=256, description="Threads of each batch that runs there. Profiles are kept for each value."
    )
    slots: int = Field(default=1, ge=1, le=1024, description="Batches that run there at a time.")
    cores: Cores = Field(
        default=(),
        description="Processor cores that its batches keep to (a list; `0,1` in a variable), at least as many as "
        "`threads`. Everything else may use them, too. Linux only. Default: all that the process may use.",
    )

    @model_validator(mode="after")
    def _has_cores_for_its_threads(self) -> DeviceSettings:
        if self.cores and len(set(self.cores)) < self.threads:
            count = f"{len(set(self.cores))} core{'s' if len(set(self.cores)) > 1 else ''}"
            raise ValueError(f"cores: {count} for {self.threads} threads; give it as many, or leave them out")
        return self


Devices = dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")], DeviceSettings]
"""By name, which is a metric label and a header's value: small letters, digits, `-` and `_`."""


def slots_of(devices: Mapping[str, DeviceSettings]) -> tuple[Slot, ...]:
    """The slots of all devices, those of the most threads first, by which requests are judged when they arrive."""
    widest = sorted(devices.items(), key=lambda device: -device[1].threads)
    named = [(name, own) for name, own in widest for _ in range(own.slots)]
    return tuple([Slot(index, name, own.threads) for index, (name, own) in enumerate(named)])


def described(places: Iterable[tuple[str, int]]) -> str:
    """Slots in words, by the device and the threads of each: `1 slot of 2 threads (wide), 2 slots of ...`."""
    return ", ".join(
        f"{count} slot{'s' if count > 1 else ''} of {threads} thread{'s' if threads > 1 else ''} ({device})"
        for (device, threads), count in Counter(places).items()
    )
