"""What every runtime gives: a model that is opened from a file, runs batches of numpy arrays, and is closed.

A runtime is a module of this package with a function `open_model`; `variants.session.open_session` calls it and adds
what is the same for all: how long opening took, what it took of memory, and one line about a file that is no model. It
may have a function `prepare`, which does what is done once in a process and belongs to no model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray

if TYPE_CHECKING:
    from variants.tables import HeldTable

Tensors = Mapping[str, NDArray[Any]]
"""Arrays by the name of the model's input or output. The first dimension of each is rows."""


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """How sessions run. `threads` is the number of threads that work on one batch (at least 1).

    `slots` is how many batches a session is to run at the same time; more than that wait for each other where a runtime
    has to set threads or memory aside for each. `longest` is how many tokens a row of text may have: a runtime that
    runs batches in few shapes pads rows to no more, and where nobody says it, not at all. `cells` is how much of a
    batch runs at once (`variants.pieces`), by default all of it.
    `arena` keeps the memory of the largest batch ever run for the next one. Measured on a 4-layer text encoder, one
    thread, batch x tokens, arena off against on: fp32 1x32 +2 %, 8x32 +4 %, 32x32 +13 %; int8 0, 0 and +1 %. After one
    batch of 64x128 a session kept 33 MB (fp32) and 48 MB (int8) without the arena, 226 and 170 MB with it. A process
    with many variants would pay that for each of them, so it is off.
    `weighed` says that what a model takes is measured, for which freed memory goes back to the system before and after;
    who serves others meanwhile leaves that out, and does it when nobody waits.
    """

    threads: int = 1
    slots: int = 1
    longest: int | None = None
    cells: int | None = None
    arena: bool = False
    weighed: bool = True


class RuntimeUnavailableError(Exception):
    """A runtime is there, but cannot be used on this machine. The message is one line that says what it needs."""


class Model(Protocol):
    """An opened model. Several threads may run it at the same time; nobody runs it while or after it is closed."""

    @property
    def input_names(self) -> tuple[str, ...]:
        """What `run` wants."""

    @property
    def output_names(self) -> tuple[str, ...]:
        """What `run` gives, in order."""

    def run(self, feeds: Tensors, /) -> dict[str, NDArray[Any]]:
        """Return every output by name for inputs by name. Releases the interpreter lock while the model runs.

        The arrays belong to the caller. Whatever the runtime raises where an input is missing or does not fit.
        """

    def close(self) -> None:
        """Give back what the model takes."""


class OpenModel(Protocol):
    """`open_model` of a runtime's module."""

    def __call__(self, path: Path, options: SessionOptions, tables: Mapping[str, HeldTable], /) -> Model:
        """Open a model file. `tables` are its initializers that are held once for all models of the process, by name.

        Raises whatever the runtime raises for a file that is no model of its kind.
        """
