"""Learning from what a larger model computes on the way to its answer.

Romero et al., "FitNets", ICLR 2015: a learned projection from the student's width to the teacher's; for transformers,
Jiao et al., "TinyBERT", EMNLP 2020.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from variants.recipes.artifact import RecipeError
from variants.recipes.distillation import TeacherAnswers, note_teacher, soft_label_loss
from variants.training.batch import Batch
from variants.training.fit import fit
from variants.training.layers import captured
from variants.training.model import Model
from variants.training.recipe import Job, Recipe
from variants.training.settings import FitSettings


@dataclass(frozen=True, slots=True)
class HiddenDistillation(Recipe):
    """Train the model's parts to give what the `teacher`'s parts give, and its logits what the teacher's are.

    `pairs` are (path in the student, path in the teacher) of parts that answer [n, tokens, width], [n, width], or
    feature maps [n, channels, height, width], which are averaged down to the smaller map. The loss is `weight` times
    the mean squared difference after projection, relative to the teacher's mean square, plus that of `Distillation`.
    Padding counts for nothing where the rows have a mask.
    """

    name: ClassVar[str] = "hidden-state distillation"

    teacher: Model
    pairs: tuple[tuple[str, str], ...]
    weight: float = 1.0
    temperature: float = 4.0
    alpha: float = 0.9
    fit: FitSettings = field(default_factory=FitSettings)

    def __post_init__(self) -> None:
        if not self.pairs or self.weight < 0.0 or self.temperature <= 0.0 or not 0.0 <= self.alpha <= 1.0:
            raise ValueError("hidden distillation needs a pair, weight from 0, temperature above 0 and alpha in [0, 1]")

    def apply(self, module: nn.Module, job: Job) -> nn.Module:
        """Train in place. Raises `RecipeError` where a part is missing or gives tensors of another rank."""
        own, theirs = (tuple(paths) for paths in zip(*self.pairs, strict=True))
        teacher = self.teacher.module.eval()
        projections = self._projections(module, teacher, own, theirs, job)
        given: dict[str, Tensor] = {}
        answers = TeacherAnswers(self.teacher, job.data.train, cached=False)
        soft = soft_label_loss(answers, self.temperature, self.alpha, self.fit.label_smoothing)
        mask = job.data.train.mask

        def loss(student: nn.Module, batch: Batch) -> Tensor:
            wanted: dict[str, Tensor] = {}
            # The soft labels run the teacher on this batch; its parts' answers are taken on the way.
            with captured(student, own, given), captured(teacher, theirs, wanted):
                value = soft(student, batch)
            kept = None if mask is None else batch.inputs[mask]
            for projection, (mine, its) in zip(projections, self.pairs, strict=True):
                value = value + self.weight * _difference(projection, given[mine], wanted[its], kept)
            return value

        fit(module, job, self.fit, loss=loss, also=projections)
        note_teacher(self.teacher, job)
        return module

    def _projections(
        self, module: nn.Module, teacher: nn.Module, own: tuple[str, ...], theirs: tuple[str, ...], job: Job
    ) -> nn.ModuleList:
        given: dict[str, Tensor] = {}
        wanted: dict[str, Tensor] = {}
        example = tuple(job.example.values())
        with torch.no_grad(), captured(module.eval(), own, given), captured(teacher, theirs, wanted):
            module(*example)
            teacher(*example)
        projections = nn.ModuleList()
        for mine, its in self.pairs:
            student, original = given[mine], wanted[its]
            if student.dim() != original.dim() or student.dim() not in (2, 3, 4):
                raise RecipeError(
                    f"{mine!r} gives {list(student.shape)} and the teacher's {its!r} {list(original.shape)}"
                )
            if student.dim() == 4:
                projections.append(nn.Conv2d(student.shape[1], original.shape[1], 1))
            else:
                projections.append(nn.Linear(student.shape[-1], original.shape[-1]))
        return projections


def _difference(projection: nn.Module, student: Tensor, original: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mean squared difference, divided by the mean square of the original."""
    if student.dim() == 4:
        smaller = (min(student.shape[2], original.shape[2]), min(student.shape[3], original.shape[3]))
        student, original = (nn.functional.adaptive_avg_pool2d(maps.float(), smaller) for maps in (student, original))
    projected = projection(student.float())
    squares, sizes = (projected - original.float()).square(), original.float().square()
    if mask is not None and student.dim() == 3:
        weights = mask.unsqueeze(2).to(squares.dtype)
        squares, sizes = squares * weights, sizes * weights
    relative: Tensor = squares.sum() / sizes.sum().clamp(min=1e-12)
    return relative
