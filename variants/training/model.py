"""A network with where it came from: the steps that made it, and what they cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from variants.preparation import Feeds
from variants.training.rows import Rows

Setting = str | float | int | bool | None

EVALUATION_BATCH = 256


@dataclass(frozen=True, slots=True)
class Step:
    """One recipe as it was applied.

    `settings` are the recipe's fields, nested ones with a dot. `seconds` is wall time; `labelled_rows` how many rows'
    labels were read (0 where none was); `peak_rss_bytes` the process's largest memory during the step, all of it;
    `parameters` the weights of the network afterwards; `measures` what else the recipe knows: accuracies and shares
    as fractions, counts.
    """

    recipe: str
    settings: Mapping[str, Setting]
    seed: int
    seconds: float
    labelled_rows: int
    peak_rss_bytes: int
    parameters: int
    measures: Mapping[str, float] = field(default_factory=dict)
    text: str = ""

    def __str__(self) -> str:
        return self.text or self.recipe


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A module that maps `example`'s tensors (its arguments by name, in order, two rows or more) to logits [n, k].

    `dynamic_axes` names the axes besides the first that may have any length, as `variants.recipes.export` takes them.
    """

    name: str
    module: nn.Module
    example: Mapping[str, Tensor]
    lineage: tuple[Step, ...] = ()
    dynamic_axes: Mapping[str, Mapping[int, str]] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Model({' > '.join(self.history)})"

    @property
    def parameters(self) -> int:
        """How many weights the network has."""
        return count_parameters(self.module)

    @property
    def history(self) -> tuple[str, ...]:
        """What made this model, oldest first, for the lineage of an `Artifact`."""
        return (self.name, *map(str, self.lineage))

    @property
    def facts(self) -> dict[str, float]:
        """What the model cost: seconds add up; of labelled rows (the steps share them) and memory the most counts."""
        return {
            "training_s": round(sum(step.seconds for step in self.lineage), 3),
            "labelled_rows": float(max((step.labelled_rows for step in self.lineage), default=0)),
            "training_peak_rss_bytes": float(max((step.peak_rss_bytes for step in self.lineage), default=0)),
        }

    def next(self, module: nn.Module, step: Step) -> Model:
        """Return what one more step made of this model."""
        return replace(self, module=module, lineage=(*self.lineage, step))

    def reference(self) -> Callable[[Feeds], NDArray[np.float32]]:
        """Return the function that answers feeds with logits float32 [n, k], for the parity check of a candidate."""

        def logits(feeds: Feeds) -> NDArray[np.float32]:
            self.module.eval()
            with torch.inference_mode():
                answer: Tensor = self.module(*(torch.from_numpy(feeds[name]) for name in self.example))
            return answer.numpy()

        return logits


def count_parameters(module: nn.Module) -> int:
    """Return the number of weights, each counted once."""
    return sum(parameter.numel() for parameter in module.parameters())


def logits_of(module: nn.Module, rows: Rows, batch: int = EVALUATION_BATCH) -> Tensor:
    """Return logits float32 [n, k] in evaluation mode; the module's mode is left as it was."""
    was_training = module.training
    module.eval()
    with torch.inference_mode():
        answers = [module(*rows.take(part).inputs).float() for part in rows.batches(batch)]
    module.train(was_training)
    return torch.cat(answers)


def accuracy(module: nn.Module, rows: Rows) -> float:
    """Return the share of rows whose largest logit is their label's."""
    return float(rows_right(module, rows).float().mean())


def rows_right(module: nn.Module, rows: Rows) -> Tensor:
    """Return, bool [n], of which rows the largest logit is their label's."""
    return logits_of(module, rows).argmax(dim=1) == rows.labels
