"""Where models are opened under a memory budget, and the memory that it is held against.

In this process (`OwnFootprint`), or in several that share memory (`service.processes.footprint`).
"""

from __future__ import annotations

from typing import Protocol

from service.memory import resident_bytes
from service.paths import OpenFile
from variants.manifest import VariantManifest
from variants.pages import KEPT
from variants.resident import give_back
from variants.runtimes import onnxruntime_cpu
from variants.session import open_file
from variants.tables import tables_bytes


class Footprint(Protocol):
    """Methods take milliseconds, some ten where much is given back: none is called on the event loop. Any other thread
    may.
    """

    @property
    def open_one(self) -> OpenFile:
        """Opens models."""

    def warm(self) -> None:
        """Have all be taken that the first model brings with it whichever it is; before anything is measured."""

    def reserve_bytes(self, slots: int, batch_bytes: int) -> int:
        """What is taken for a moment beside models: by a batch of so many bytes in each slot, by a change of models."""

    def resident_bytes(self) -> int:
        """Of all processes that serve; what they share counts once."""

    def models_bytes(self) -> int:
        """What grows by what each load adds; lookup tables, which may be in memory for others, are not counted."""

    def give_back(self) -> None:
        """Hand back to the system what models took that were closed."""

    def tidy(self) -> None:
        """Hand back what opening models, trying them and batches have left free, where that is in this process."""

    @property
    def kept_bytes(self) -> int:
        """What is kept of models that were closed, for the next ones; no part of `models_bytes`."""

    def keep_at_most(self, most_bytes: int) -> None:
        """Keep no more than that, and up to that what would be used again."""

    def lack(self, variant: VariantManifest) -> str:
        """Why a variant cannot be served under a budget, in one line; empty where it can."""


class OwnFootprint:
    """That of this process, in which models are opened, by `open_one`. See `Footprint`."""

    def __init__(self, open_one: OpenFile = open_file) -> None:
        self.open_one = open_one

    def warm(self) -> None:
        """See `Footprint`."""
        onnxruntime_cpu.warm()

    def reserve_bytes(self, slots: int, batch_bytes: int) -> int:
        """See `Footprint`."""
        return slots * batch_bytes

    def resident_bytes(self) -> int:
        """See `Footprint`."""
        return resident_bytes()

    def models_bytes(self) -> int:
        """See `Footprint`. What batches and trials have left free is nobody's, and goes back before it is measured."""
        self.tidy()
        return resident_bytes() - tables_bytes() - self.kept_bytes

    def give_back(self) -> None:
        """See `Footprint`."""
        give_back()

    def tidy(self) -> None:
        """See `Footprint`."""
        give_back()

    @property
    def kept_bytes(self) -> int:
        """See `Footprint`: pages of lookup tables."""
        return KEPT.bytes

    def keep_at_most(self, most_bytes: int) -> None:
        """See `Footprint`."""
        KEPT.keep_at_most(most_bytes)

    def lack(self, _: VariantManifest) -> str:
        """See `Footprint`."""
        return ""


OWN = OwnFootprint()
