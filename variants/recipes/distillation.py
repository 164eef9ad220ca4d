"""Learning from a larger model's answers.

Soft labels: Hinton et al., "Distilling the Knowledge in a Neural Network", 2015.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from variants.training.batch import Batch
from variants.training.fit import Loss, fit
from variants.training.model import Model, logits_of
from variants.training.recipe import Job, Recipe
from variants.training.rows import Rows
from variants.training.settings import FitSettings


@dataclass(frozen=True, slots=True)
class Distillation(Recipe):
    """Train the model to answer as the `teacher` does.

    The loss is `alpha` times the divergence from the teacher's answers at `temperature`, and 1 - `alpha` times the
    cross-entropy with the labels. With `on_unlabelled`, the unlabelled rows are learnt from instead, by the teacher's
    answers alone. A teacher's labelled rows count as read, for its answers carry them.
    """

    name: ClassVar[str] = "distillation"

    teacher: Model
    temperature: float = 4.0
    alpha: float = 0.9
    on_unlabelled: bool = False
    fit: FitSettings = field(default_factory=FitSettings)

    def __post_init__(self) -> None:
        if self.temperature <= 0.0 or not 0.0 <= self.alpha <= 1.0:
            raise ValueError(f"temperature {self.temperature:g} must be above 0, alpha {self.alpha:g} in [0, 1]")

    def apply(self, module: nn.Module, job: Job) -> nn.Module:
        """Train in place."""
        rows = (job.data.unlabelled or job.data.train) if self.on_unlabelled else None
        answers = TeacherAnswers(self.teacher, rows or job.data.train, cached=self.fit.augmentation is None)
        alpha = 1.0 if self.on_unlabelled else self.alpha
        loss = soft_label_loss(answers, self.temperature, alpha, self.fit.label_smoothing)
        fit(module, job, self.fit, loss=loss, rows=rows)
        note_teacher(self.teacher, job)
        return module


class TeacherAnswers:
    """The teacher's logits for a batch: looked up where its rows are unchanged, computed where they are not."""

    def __init__(self, teacher: Model, rows: Rows, *, cached: bool) -> None:
        self._module = teacher.module.eval()
        self._kept = logits_of(self._module, rows) if cached else None

    def __call__(self, batch: Batch) -> Tensor:
        """Return logits float32 [n, k], without a gradient."""
        if self._kept is not None and batch.rows is not None:
            return self._kept[batch.rows].clone()
        with torch.no_grad():
            answer: Tensor = self._module(*batch.inputs)
        return answer.float()


def soft_label_loss(
    answers: Callable[[Batch], Tensor], temperature: float, alpha: float, label_smoothing: float
) -> Loss:
    """Return Hinton's loss; the divergence is times temperature squared, so that gradients keep their size.

    `answers` returns the teacher's logits float32 [n, k] for a batch, without a gradient.
    """

    def loss(module: nn.Module, batch: Batch) -> Tensor:
        logits: Tensor = module(*batch.inputs)
        softened = (logits.float() / temperature).log_softmax(dim=1)
        targets = (answers(batch) / temperature).softmax(dim=1)
        divergence = nn.functional.kl_div(softened, targets, reduction="batchmean") * temperature**2
        if alpha == 1.0:
            return divergence
        entropy = nn.functional.cross_entropy(logits.float(), batch.targets, label_smoothing=label_smoothing)
        return alpha * divergence + (1.0 - alpha) * entropy

    return loss


def note_teacher(teacher: Model, job: Job) -> None:
    """Enter into the job what the teacher cost."""
    job.labelled_rows = max(job.labelled_rows, int(teacher.facts["labelled_rows"]))
    job.measures["teacher_training_s"] = teacher.facts["training_s"]
    job.measures["teacher_parameters"] = float(teacher.parameters)
