"""A smaller network that begins with the most important channels of a larger one of its kind, in place of new weights.

Where they come from is `variants.recipes.channel_pruning`; that a pruned network learns faster than a new one of its
shape: Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from variants.recipes.artifact import RecipeError
from variants.recipes.channel_pruning import ChannelPruning
from variants.recipes.distillation import note_teacher
from variants.training.layers import classifier_path, part
from variants.training.model import Model, accuracy
from variants.training.recipe import Job, Recipe
from variants.training.settings import FitSettings


@dataclass(frozen=True, slots=True)
class ChannelInheritance(Recipe):
    """Give the network the channels of `parent` with the largest weights; nothing is trained.

    Every layer of the parent must be wider by the same factor, 1 or more, or this one's shape is not met.
    """

    name: ClassVar[str] = "channel inheritance"

    parent: Model

    def apply(self, module: nn.Module, job: Job) -> nn.Module:
        """Load the channels. Raises `RecipeError` where the parent, pruned, has another shape."""
        share = _features(module, job) / _features(self.parent.module, job)
        heir = self.parent.module
        if share < 1.0:
            heir = ChannelPruning(ratio=1.0 - share, fit=FitSettings(epochs=0))(self.parent, job.data).module
        try:
            module.load_state_dict(heir.state_dict())
        except RuntimeError as error:
            raise RecipeError(f"{self.parent.name!r} with {share:.3g} of its channels has another shape") from error
        note_teacher(self.parent, job)
        job.measures["channels_kept"] = share
        job.measures["validation_accuracy"] = accuracy(module, job.data.validation)
        return module


def _features(module: nn.Module, job: Job) -> int:
    classifier = part(module, classifier_path(module, job.example))
    return classifier.in_features if isinstance(classifier, nn.Linear) else classifier.in_channels  # type: ignore[return-value]  # a Conv2d
