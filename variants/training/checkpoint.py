"""Unfinished training on disk: what the next run needs to go on after the last whole epoch."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from variants.atomic import replacing


class Stateful(Protocol):
    """Modules, optimizers, schedules, and whatever else can give its state and take it back."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state, of tensors, numbers, strings and containers of them."""
        ...

    def load_state_dict(self, state: dict[str, Any], /) -> Any:
        """Go on from a state."""
        ...


class Checkpoint:
    """The state of one fit, in one file that is replaced after every epoch.

    Without a path nothing is written. A file of another `key`, or one that cannot be read, counts as none.
    """

    def __init__(self, path: Path | None, key: str, parts: Mapping[str, Stateful], generator: torch.Generator) -> None:
        self._path = path
        self._key = key
        self._parts = parts
        self._generator = generator

    def restore(self) -> int:
        """Bring all parts to where they were kept; return how many epochs were done then, 0 where nothing was kept."""
        if self._path is None:
            return 0
        try:
            state = torch.load(self._path, weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError):
            return 0
        if not isinstance(state, dict) or state.get("key") != self._key:
            return 0
        for name, part in self._parts.items():
            part.load_state_dict(state["parts"][name])
        self._generator.set_state(state["generator"])
        torch.set_rng_state(state["torch"])
        return int(state["epoch"])

    def keep(self, epoch: int) -> None:
        """Write the state after an epoch; an interrupt leaves the file before it, whole."""
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "key": self._key,
            "epoch": epoch,
            "parts": {name: part.state_dict() for name, part in self._parts.items()},
            "generator": self._generator.get_state(),
            "torch": torch.get_rng_state(),
        }
        with replacing(self._path) as temporary:
            torch.save(state, temporary)
