"""Learning from a larger model's answers to changed images, which both see alike.

Beyer et al., "Knowledge Distillation: A Good Teacher is Patient and Consistent", CVPR 2022: teacher and student are
given the very same view of an image, and the student is trained for long. There every view is new; here a pass over
the rows takes one of a fixed number of views, so that the teacher answers each only once.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from variants.recipes.distillation import note_teacher, soft_label_loss
from variants.training.batch import Augmentation, Batch, Compose
from variants.training.fit import fit
from variants.training.image_augmentation import Flip, Shift
from variants.training.model import Model, logits_of
from variants.training.recipe import Job, Recipe
from variants.training.rows import Rows
from variants.training.settings import FitSettings


@dataclass(frozen=True, slots=True)
class ConsistentDistillation(Recipe):
    """Train the model to answer as the `teacher` does, on `views` (1 or more) changed copies of all rows, in turns.

    `augmentation` makes the views; that of the fit itself is not heeded. The loss is `alpha` in [0, 1] times the
    divergence from the teacher's answers at `temperature`, and 1 - `alpha` times the cross-entropy with the labels. A
    teacher's labelled rows count as read, for its answers carry them. A view takes as much memory as the rows do, and
    one is kept at a time.
    """

    name: ClassVar[str] = "consistent distillation"

    teacher: Model
    views: int = 8
    augmentation: Augmentation = field(default_factory=lambda: Compose((Flip(), Shift(1))))
    temperature: float = 1.0
    alpha: float = 0.9
    fit: FitSettings = field(default_factory=FitSettings)

    def __post_init__(self) -> None:
        if self.views < 1 or self.temperature <= 0.0 or not 0.0 <= self.alpha <= 1.0:
            raise ValueError(
                f"views {self.views} must be 1 or more, temperature {self.temperature:g} above 0, "
                f"alpha {self.alpha:g} in [0, 1]"
            )

    def apply(self, module: nn.Module, job: Job) -> nn.Module:
        """Train in place."""
        views = Views(self.teacher.module, job.data.train, self.augmentation, self.views, job.run.seed)
        soft = soft_label_loss(views.answers, self.temperature, self.alpha, self.fit.label_smoothing)

        def loss(student: nn.Module, batch: Batch) -> Tensor:
            return soft(student, views.shown(batch))

        # How far the views have come is part of what an interrupted fit goes on from.
        fit(module, job, replace(self.fit, augmentation=None), loss=loss, also=views)
        note_teacher(self.teacher, job)
        return module


class Views(nn.Module):
    """Changed copies of all rows, each the same whenever its turn comes, with what a teacher answers to them.

    A pass over the rows is a view: once every row was asked for, it is the next one's turn. How many rows were asked
    for is the module's only state.
    """

    asked: Tensor

    def __init__(self, teacher: nn.Module, rows: Rows, augmentation: Augmentation, count: int, seed: int) -> None:
        super().__init__()
        self.register_buffer("asked", torch.zeros((), dtype=torch.int64))
        # In a list, for a network in an attribute would be a part of this one, trained and written down with it.
        self._teachers = [teacher]
        self._rows = rows
        self._augmentation = augmentation
        self._count = count
        self._seed = seed
        self._number = -1
        self._view = rows
        self._answers: dict[int, Tensor] = {}

    def shown(self, batch: Batch) -> Batch:
        """Return the batch's rows, known by their numbers, as the view of this pass shows them."""
        if batch.rows is None:
            raise ValueError("views are of rows that are known by number: the fit must not augment them")
        number = int(self.asked) // len(self._rows) % self._count
        self.asked += len(batch.rows)
        if number != self._number:
            self._make(number)
        part = self._view.take(batch.rows)
        return Batch(part.inputs, part.labels, batch.rows)

    def answers(self, shown: Batch) -> Tensor:
        """Return the teacher's logits float32 [n, k] for the batch that was shown last."""
        return self._answers[self._number][shown.rows]

    def _make(self, number: int) -> None:
        generator = torch.Generator().manual_seed(self._seed + number)
        self._number = number
        changed = self._augmentation(Batch(self._rows.inputs, self._rows.labels), generator)
        self._view = replace(self._rows, inputs=changed.inputs, labels=changed.targets)
        if number not in self._answers:
            # Copied: what inference gave cannot be learnt from.
            self._answers[number] = logits_of(self._teachers[0], self._view).clone()
