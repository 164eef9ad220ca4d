"""Self-supervised pre-training on images: two changed views of one image shall look alike, others not.

Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations" (SimCLR), ICML 2020: a projection
head that is thrown away, and the NT-Xent loss. No label is read; train the classifier afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from variants.training.batch import Augmentation, Batch, Compose
from variants.training.fit import fit
from variants.training.image_augmentation import Crop, Cutout, Shift
from variants.training.layers import captured_input, classifier_path
from variants.training.recipe import Job, Recipe
from variants.training.settings import FitSettings


@dataclass(frozen=True, slots=True)
class ContrastivePretraining(Recipe):
    """Train what comes before the classifier on the unlabelled images, or on those of the training rows.

    `view` makes a view of an image; `temperature` sharpens the similarities; the head projects to `width` numbers.
    The classifier, whose input are the features, is left as it was. A fit's own augmentation is not heeded.
    """

    name: ClassVar[str] = "contrastive pre-training"

    fit: FitSettings = field(default_factory=lambda: FitSettings(epochs=10, batch=256))
    view: Augmentation = field(default_factory=lambda: Compose((Crop(0.6), Shift(2), Cutout(8))))
    temperature: float = 0.2
    width: int = 64

    def apply(self, module: nn.Module, job: Job) -> nn.Module:
        """Train in place. Raises `RecipeError` where no layer gives the logits."""
        rows = job.data.unlabelled or job.data.train
        classifier = classifier_path(module, job.example)
        taken: dict[str, Tensor] = {}
        with torch.no_grad(), captured_input(module, classifier, taken):
            module(*job.example.values())
        features = taken[classifier].flatten(1).shape[1]
        head = nn.Sequential(nn.Linear(features, features), nn.ReLU(), nn.Linear(features, self.width))
        # A generator of its own: the loss is not handed the one that shuffles.
        generator = torch.Generator().manual_seed(job.run.seed)

        def projected(network: nn.Module, batch: Batch) -> Tensor:
            with captured_input(network, classifier, taken):
                network(*batch.inputs)
            answer: Tensor = head(taken[classifier].flatten(1).float())
            return answer

        def loss(network: nn.Module, batch: Batch) -> Tensor:
            first, second = (projected(network, self.view(batch, generator)) for _ in range(2))
            return nt_xent(first, second, self.temperature)

        fit(module, job, replace(self.fit, augmentation=None), loss=loss, rows=rows, also=head)
        job.measures["unlabelled_rows"] = float(len(rows))
        return module


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Return the normalized, temperature-scaled cross-entropy: rows of `first` [n, d] go with those of `second`.

    Each of the 2n views has its partner to find among the 2n - 1 others, by cosine similarity.
    """
    views = nn.functional.normalize(torch.cat([first, second]), dim=1)
    similar = (views @ views.T / temperature).fill_diagonal_(-torch.inf)
    partners = torch.arange(len(views)).roll(len(first))
    return nn.functional.cross_entropy(similar, partners)
