"""Settings of what a replica takes of its machine, and how: slots, cores, devices, threads or processes, memory.

The descriptions here are the reference that users read.
"""

from __future__ import annotations

import os
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, Field, model_validator

from router.contract import Slot
from service.device_settings import Devices, slots_of
from service.memory import parse_budget
from service.scoped_settings import Cores, Names, Positive


class MachineSettings(BaseModel):
    """What of a replica's settings says where batches run and where models lie."""

    slots: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="Batches that run at a time. Default: one for each of `slot_cores`, else the usable cores "
        "(affinity and cgroup quota respected), divided by `threads_per_slot`.",
    )
    threads_per_slot: int = Field(
        default=1, ge=1, le=256, description="Threads of each running batch. Profiles are kept for each value."
    )
    slot_cores: Cores = Field(
        default=(),
        description="Processor cores that batches run on (a list; `0,1` in a variable): the slots take them in turn, "
        "and everything else of the process keeps to the other cores that it may use, batches below `inline_below_s` "
        "too. Linux only, with `threads_per_slot` of 1. Default: batches and the event loop share all cores.",
    )
    devices: Devices = Field(
        default_factory=dict,
        description="Slots of several kinds (a table for each, see below), in place of `slots`, `threads_per_slot` and "
        "`slot_cores`: each batch goes where it is worth most (docs/devices.md). Default: all slots are alike.",
    )
    switch_interval_s: float = Field(
        default=0.0001,
        gt=0,
        le=1,
        description="How long a Python thread may keep the interpreter while another one wants it, seconds. A batch "
        "whose model has run waits for it that long at most; lower, the threads change so often that it costs more.",
    )
    isolation: Literal["threads", "processes"] = Field(
        default="threads",
        description="Where batches run: in `threads` of the serving process, or each slot in one of its `processes`, "
        "which share the models' memory: then a model that crashes or hangs costs no more than its batch "
        "(docs/isolation.md). Linux only.",
    )
    hang_s: Positive = Field(
        default=1.0,
        description="In `processes`, a batch that runs for so long, seconds, and 20 times as long as planned, hangs: "
        "its process is killed.",
    )
    inline_below_s: float = Field(
        default=0.0003,
        ge=0,
        le=0.1,
        description="Batches planned shorter than this run on the event loop, seconds: handing them to a thread would "
        "cost more. 0 hands over all, and so do `processes`.",
    )
    memory_budget: Annotated[str, AfterValidator(parse_budget)] | None = Field(
        default=None,
        description="Resident memory of the serving process, or of all `processes` together: bytes with a unit "
        "(`512MiB`) or a share of the container's limit (`60%`). Variants are loaded and unloaded by what they are "
        "worth; families that nobody asks for are loaded at their first request. Default: everything is loaded at the "
        "start.",
    )
    pinned: Names = Field(
        default=(), description="Families whose smallest variant stays in memory under a `memory_budget`."
    )

    @model_validator(mode="after")
    def _a_slot_on_a_core_has_one_thread(self) -> Self:
        if self.slot_cores and self.threads_per_slot > 1:
            raise ValueError("slot_cores: a slot on one core runs one thread; threads_per_slot must be 1")
        return self

    @model_validator(mode="after")
    def _devices_have_all_slots(self) -> Self:
        if self.devices:
            if Slot(0).device in self.devices:
                raise ValueError(f"devices: {Slot(0).device} is what answers do not name; call it otherwise")
            if also := sorted({"slots", "threads_per_slot", "slot_cores"} & self.model_fields_set):
                raise ValueError(f"devices: they say how many slots there are and of what; leave {also[0]} out")
        return self

    @model_validator(mode="after")
    def _processes_are_to_be_had(self) -> Self:
        if self.isolation == "processes":
            if not hasattr(os, "memfd_create") or not hasattr(os, "pidfd_open"):
                raise ValueError("isolation: `processes` need Linux; `threads` run anywhere")
            if self.memory_budget is not None and (wide := [name for name, width in self.widths.items() if width > 1]):
                where = f"threads of devices.{wide[0]}" if self.devices else "threads_per_slot"
                raise ValueError(
                    f"isolation: batches in `processes` run with one thread under a memory_budget; set {where} to 1"
                )
        return self

    @property
    def places(self) -> tuple[Slot, ...]:
        """The slots as the router has them; the first one's device is the one of the most threads."""
        return slots_of(self.devices) or tuple([Slot(index) for index in range(self.slot_count)])

    @property
    def widths(self) -> dict[str, int]:
        """Threads of a batch by device, the first slot's first; `cpu` where no devices are set."""
        if not self.devices:
            return {"cpu": self.threads_per_slot}
        return {slot.device: slot.width for slot in self.places}

    @property
    def threads(self) -> int:
        """Threads of a batch of the first slot."""
        return next(iter(self.widths.values()))

    @property
    def slot_count(self) -> int:
        """Batches that run at a time on this machine."""
        if self.devices:
            return sum(device.slots for device in self.devices.values())
        # Here, because it loads onnxruntime, which reading settings does not need.
        from variants.fingerprint import available_cores  # noqa: PLC0415 - see above

        return self.slots or len(self.slot_cores) or max(1, int(available_cores()) // self.threads_per_slot)
