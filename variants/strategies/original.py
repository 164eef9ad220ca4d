"""The network that a strategy starts from, and what strategies share: its training, and learning from another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from variants.architectures.image import ImageArchitecture
from variants.architectures.trained import Trainer, description
from variants.recipes.distillation import Distillation
from variants.recipes.supervised import Supervised
from variants.strategies.bench import Bench
from variants.training.model import Model
from variants.training.settings import FitSettings

Advance = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Original:
    """An architecture and how it is trained before any strategy."""

    architecture: ImageArchitecture
    recipe: Supervised


@dataclass(frozen=True, slots=True)
class Teaching:
    """How a network learns from a larger one: soft labels (Hinton et al., 2015), and how long.

    Temperature 1 is picked from twelve runs of one seed each that tell it from 4, not from 2: see docs/strategies.md.
    """

    fit: FitSettings = field(default_factory=lambda: FitSettings(epochs=20, batch=128, rate=4e-3, weight_decay=0.02))
    temperature: float = 1.0
    alpha: float = 0.9

    def by(self, teacher: Model) -> Distillation:
        """Return the recipe that learns from this teacher."""
        return Distillation(teacher, self.temperature, self.alpha, fit=self.fit)


@dataclass(frozen=True, slots=True, eq=False)
class Workbench:
    """What a strategy works with: a trainer that sees no test rows, a bench that has them, a seed, and a log."""

    trainer: Trainer
    bench: Bench
    seed: int = 0
    advance: Advance = lambda _: None
    log: Callable[[str], None] = lambda _: None

    def train(self, role: str, architecture: ImageArchitecture, recipe: Supervised) -> Model:
        """Return the network trained so, from the cache where it was before."""
        self.log(f"seed {self.seed}, {role}: {architecture}, {description(recipe)}")
        return self.trainer.trained(role, architecture, recipe, self.seed, advance=self.advance)

    def teach(
        self, role: str, architecture: ImageArchitecture, teaching: Teaching, teacher: Model, taught_as: Original
    ) -> Model:
        """Return the network that learnt from the teacher; `taught_as` is how the teacher itself came about."""
        recipe = teaching.by(teacher)
        self.log(f"seed {self.seed}, {role}: {architecture}, {description(recipe)}")
        depends = self.trainer.key(taught_as.architecture, taught_as.recipe, self.seed)
        return self.trainer.trained(role, architecture, recipe, self.seed, advance=self.advance, depends=depends)
