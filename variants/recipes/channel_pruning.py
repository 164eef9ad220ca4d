"""Structured pruning: whole channels go, and every layer that shares them shrinks; the graph is really smaller.

Which layers depend on each other is found by `torch-pruning`: Fang et al., "DepGraph: Towards Any Structural Pruning",
CVPR 2023. Importance by magnitude is that of Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017; by Taylor
expansion that of Molchanov et al., "Importance Estimation for Neural Network Pruning", CVPR 2019.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
import torch_pruning
from torch import nn

from variants.recipes.artifact import RecipeError
from variants.training.fit import fit
from variants.training.layers import classifier_path, faults_of_the_network, part
from variants.training.recipe import Job, Recipe
from variants.training.settings import FitSettings

GRADIENT_ROWS = 256
"""Rows whose gradients tell the importance by Taylor expansion."""
_FIXED = "the network's code fixes numbers of channels, or cannot be followed"
"""What the library stumbles over is a network that it cannot follow, or whose code does not follow it."""


@dataclass(frozen=True, slots=True)
class ChannelPruning(Recipe):
    """Remove the share `ratio` in (0, 1) of all channels, in `rounds`, with a fit after each.

    With `everywhere` each layer loses that share; without, the least important channels of the network go, wherever
    they are, but no layer loses more than `most`. The layer that gives the logits keeps all its outputs, and so do the
    layers whose paths begin with one of `spare`. Channels per layer stay a multiple of `multiple_of`.
    """

    name: ClassVar[str] = "channel pruning"

    ratio: float = 0.5
    rounds: int = 1
    fit: FitSettings = field(default_factory=lambda: FitSettings(epochs=5, rate=1e-3))
    importance: Literal["magnitude", "taylor"] = "magnitude"
    everywhere: bool = True
    most: float = 0.9
    multiple_of: int | None = None
    spare: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0.0 < self.ratio < 1.0 or not 0.0 < self.most < 1.0 or self.rounds < 1:
            raise ValueError(
                f"ratio {self.ratio:g} and most {self.most:g} must lie in (0, 1), rounds {self.rounds} be 1 or more"
            )

    def apply(self, module: nn.Module, job: Job) -> nn.Module:
        """Prune and train, `rounds` times."""
        example = tuple(job.example.values())
        operations, parameters = torch_pruning.utils.count_ops_and_params(module, example)
        job.planned_fits = self.rounds
        with faults_of_the_network(_FIXED):
            pruner = self._pruner(module, job, example)
        for _ in range(self.rounds):
            if self.importance == "taylor":
                _leave_gradients(module, job)
            with faults_of_the_network(_FIXED):
                pruner.step()
                module(*example)
            module.zero_grad(set_to_none=True)
            fit(module, job, self.fit)
        left, parameters_left = torch_pruning.utils.count_ops_and_params(module, example)
        if parameters_left == parameters:
            raise RecipeError("no channel could be removed: every layer is spared or gives the logits")
        job.measures["multiply_adds_kept"] = left / operations
        job.measures["parameters_kept"] = parameters_left / parameters
        return module

    def _pruner(self, module: nn.Module, job: Job, example: tuple[torch.Tensor, ...]) -> Any:
        spared = [part(module, classifier_path(module, job.example))]
        spared += [layer for path, layer in module.named_modules() if path and path.startswith(self.spare)]
        kinds = torch_pruning.importance
        importance = kinds.GroupTaylorImportance() if self.importance == "taylor" else kinds.GroupMagnitudeImportance()
        return torch_pruning.pruner.BasePruner(
            module,
            example,
            importance=importance,
            pruning_ratio=self.ratio,
            max_pruning_ratio=self.most,
            iterative_steps=self.rounds,
            global_pruning=not self.everywhere,
            ignored_layers=spared,
            round_to=self.multiple_of,
        )


def _leave_gradients(module: nn.Module, job: Job) -> None:
    rows = job.data.train.take(slice(0, GRADIENT_ROWS))
    module.zero_grad(set_to_none=True)
    nn.functional.cross_entropy(module(*rows.inputs), rows.labels).backward()
