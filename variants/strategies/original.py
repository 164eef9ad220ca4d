"""The network that a strategy starts from, and what strategies share: its training, and learning from another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from variants.architectures.image import ImageArchitecture
from variants.architectures.trained import Trainer, description
from variants.recipes.channel_inheritance import ChannelInheritance
from variants.recipes.consistent_distillation import ConsistentDistillation
from variants.recipes.supervised import Supervised
from variants.strategies.bench import Bench
from variants.training.batch import Augmentation, Compose
from variants.training.image_augmentation import Flip, Shift
from variants.training.model import Model
from variants.training.recipe import Pipeline, Recipe
from variants.training.settings import FitSettings

Advance = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Original:
    """An architecture and how it is trained before any strategy; with `seed`, always by that seed: one network."""

    architecture: ImageArchitecture
    recipe: Supervised
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Teaching:
    """How a network learns from a larger one: both are shown the same changed images, for long (Beyer et al., 2022).

    `augmentation` changes them, in as many `views` as there are; see `variants.recipes.consistent_distillation`. With
    `inherits` the network begins with the channels of the larger one, which must be of the same kind.
    """

    fit: FitSettings = field(default_factory=lambda: FitSettings(epochs=16, batch=256, rate=6e-3, weight_decay=0.02))
    augmentation: Augmentation = field(default_factory=lambda: Compose((Flip(), Shift(1))))
    views: int = 6
    temperature: float = 1.0
    alpha: float = 0.9
    inherits: bool = False

    def by(self, teacher: Model) -> Pipeline:
        """Return the recipes that learn from this teacher."""
        distillation = ConsistentDistillation(
            teacher, self.views, self.augmentation, self.temperature, self.alpha, self.fit
        )
        return Pipeline((ChannelInheritance(teacher), distillation) if self.inherits else (distillation,))

    def alone(self) -> Supervised:
        """Return the recipe that learns as long from as many changed images, but from labels: what patience gives."""
        return Supervised(replace(self.fit, augmentation=self.augmentation))


@dataclass(frozen=True, slots=True, eq=False)
class Workbench:
    """What a strategy works with: a trainer that sees no test rows, a bench that has them, a seed, and a log."""

    trainer: Trainer
    bench: Bench
    seed: int = 0
    advance: Advance = lambda _: None
    log: Callable[[str], None] = lambda _: None

    def begin(self, role: str, original: Original) -> Model:
        """Return the network that others learn from or are compared with, from the cache where it was before."""
        model = self.trained(role, original.architecture, original.recipe, self._seed_of(original))
        # What learns from it is kept under its name too: one that says the same in every strategy.
        return replace(model, name=str(original.architecture))

    def train(self, role: str, architecture: ImageArchitecture, recipe: Supervised) -> Model:
        """Return the network trained so by the workbench's seed."""
        return self.trained(role, architecture, recipe, self.seed)

    def inherit(self, role: str, architecture: ImageArchitecture, parent: Model, trained_as: Original) -> Model:
        """Return the network with the parent's channels, not trained since; `trained_as` is how the parent was.

        Raises `RecipeError` where the parent's channels do not fit.
        """
        return self.trained(role, architecture, ChannelInheritance(parent), self.seed, trained_as)

    def teach(
        self, role: str, architecture: ImageArchitecture, teaching: Teaching, teacher: Model, trained_as: Original
    ) -> Model:
        """Return the network that learnt from the teacher; `trained_as` is how the teacher itself was trained."""
        return self.trained(role, architecture, teaching.by(teacher), self.seed, trained_as)

    def trained(
        self,
        role: str,
        architecture: ImageArchitecture,
        recipe: Recipe | Pipeline,
        seed: int,
        after: Original | None = None,
    ) -> Model:
        """Return the network that a recipe gives, which may depend on another that was trained `after`."""
        self.log(f"seed {seed}, {role}: {architecture}, {description(recipe)}")
        depends = "" if after is None else self.trainer.key(after.architecture, after.recipe, self._seed_of(after))
        return self.trainer.trained(role, architecture, recipe, seed, advance=self.advance, depends=depends)

    def _seed_of(self, original: Original) -> int:
        return self.seed if original.seed is None else original.seed
