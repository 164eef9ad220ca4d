"""Learning from one's own answers to rows without labels.

Lee, "Pseudo-Label", ICML workshop 2013, with soft answers and a changed view for the student, as in Xie et al.,
"Self-training with Noisy Student", CVPR 2020, and Chen et al., "Big Self-Supervised Models are Strong Semi-Supervised
Learners", NeurIPS 2020. Here teacher and student are one network: it goes on from the weights that answered.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from torch import nn

from variants.training.fit import cross_entropy, fit
from variants.training.model import logits_of
from variants.training.recipe import Job, Recipe
from variants.training.settings import FitSettings


@dataclass(frozen=True, slots=True)
class SelfTraining(Recipe):
    """Train the model to answer changed unlabelled rows as it answers them unchanged now.

    The rows are the unlabelled ones or, where there are none, those of the training part, whose labels are not read;
    the augmentation is that of the fit. Answers are probabilities at `temperature` (above 0): below 1, surer than
    the model is.
    """

    name: ClassVar[str] = "self-training"

    temperature: float = 1.0
    fit: FitSettings = field(default_factory=FitSettings)

    def __post_init__(self) -> None:
        if self.temperature <= 0.0:
            raise ValueError(f"temperature {self.temperature:g} must be above 0")

    def apply(self, module: nn.Module, job: Job) -> nn.Module:
        """Train in place."""
        rows = job.data.unlabelled or job.data.train
        answers = (logits_of(module, rows) / self.temperature).softmax(dim=1)
        job.measures["mean_confidence"] = float(answers.max(dim=1).values.mean())
        job.measures["unlabelled_rows"] = float(len(rows))
        # The targets of a batch may be shares of all classes, so the answers simply take the labels' place.
        taught = replace(rows, labels=answers)
        fit(module, job, self.fit, loss=cross_entropy(self.fit.label_smoothing), rows=taught)
        return module
