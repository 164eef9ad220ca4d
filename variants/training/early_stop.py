"""Stop when the validation accuracy no longer rises, and keep the best epoch's weights."""

from __future__ import annotations

from typing import Any

from torch import nn


class EarlyStop:
    """Watches one fit. With `patience` None nothing is kept and nothing ends early."""

    def __init__(self, patience: int | None) -> None:
        self._patience = patience
        self._best: float = -1.0
        self._since = 0
        self._weights: dict[str, Any] = {}

    @property
    def is_over(self) -> bool:
        """Whether `patience` epochs have passed without a better one."""
        return self._patience is not None and self._since >= self._patience

    def see(self, accuracy: float, module: nn.Module) -> None:
        """Take note of an epoch's validation accuracy, a fraction, and of the weights where it is the best so far."""
        self._since += 1
        if accuracy > self._best:
            self._best, self._since = accuracy, 0
            self._weights = {name: values.clone() for name, values in module.state_dict().items()}

    def restore(self, module: nn.Module) -> None:
        """Give the module the best epoch's weights, if any were kept."""
        if self._weights:
            module.load_state_dict(self._weights)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must hold."""
        return {"best": self._best, "since": self._since, "weights": self._weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._best, self._since, self._weights = state["best"], state["since"], state["weights"]
