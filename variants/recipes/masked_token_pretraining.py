"""Self-supervised pre-training on text: guess the tokens that were hidden.

Devlin et al., "BERT", NAACL 2019: of the chosen tokens 80 % become the mask, 10 % a random token, 10 % stay. The word
embeddings are the output layer too: Press and Wolf, "Using the Output Embedding to Improve Language Models", 2017.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from variants.recipes.artifact import RecipeError
from variants.training.batch import Batch
from variants.training.fit import fit
from variants.training.layers import captured, part
from variants.training.recipe import Job, Recipe
from variants.training.settings import FitSettings
from variants.training.text_augmentation import inner_tokens

UNSEEN = -100
"""The target of tokens that were not hidden: what `cross_entropy` leaves out."""


@dataclass(frozen=True, slots=True)
class MaskedTokenPretraining(Recipe):
    """Train an encoder on the unlabelled texts, or on those of the training rows.

    The network's first two inputs are token ids and attention mask, int64 [n, tokens]. `hidden` is the path of the
    part that gives the tokens' last state [n, tokens, width], `embedding` that of the `nn.Embedding` of that width;
    `mask_id` is the id of [MASK], and `share` of the tokens are chosen, never the first and last of a row.
    """

    name: ClassVar[str] = "masked-token pre-training"

    hidden: str
    embedding: str
    mask_id: int
    share: float = 0.15
    fit: FitSettings = field(default_factory=lambda: FitSettings(epochs=3, rate=1e-3))

    def apply(self, module: nn.Module, job: Job) -> nn.Module:
        """Train in place. Raises `RecipeError` where the parts do not fit together."""
        words = part(module, self.embedding)
        if not isinstance(words, nn.Embedding):
            raise RecipeError(f"{self.embedding!r} is a {type(words).__name__}, not an Embedding")
        given: dict[str, Tensor] = {}
        with torch.no_grad(), captured(module, (self.hidden,), given):
            module(*job.example.values())
        if given[self.hidden].dim() != 3 or given[self.hidden].shape[2] != words.embedding_dim:
            shape = list(given[self.hidden].shape)
            raise RecipeError(f"{self.hidden!r} gives {shape}, not [rows, tokens, {words.embedding_dim}]")
        rows = job.data.unlabelled or job.data.train
        head = _Head(words.embedding_dim, words.num_embeddings)
        generator = torch.Generator().manual_seed(job.run.seed)

        def loss(network: nn.Module, batch: Batch) -> Tensor:
            ids, mask = batch.inputs[:2]
            seen, targets = hide(ids, mask, self.share, self.mask_id, words.num_embeddings, generator)
            with captured(network, (self.hidden,), given):
                network(seen, *batch.inputs[1:])
            is_hidden = targets != UNSEEN
            scores = head(given[self.hidden][is_hidden].float(), words.weight)
            return nn.functional.cross_entropy(scores, targets[is_hidden], reduction="sum") / is_hidden.sum().clamp(
                min=1
            )

        fit(module, job, replace(self.fit, augmentation=None), loss=loss, rows=rows, also=head)
        job.measures["unlabelled_rows"] = float(len(rows))
        return module


class _Head(nn.Module):
    """From a token's state to a score for every word, by likeness to the word's embedding."""

    def __init__(self, width: int, words: int) -> None:
        super().__init__()
        self.transform = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width))
        self.bias = nn.Parameter(torch.zeros(words))

    def forward(self, states: Tensor, embeddings: Tensor) -> Tensor:
        scores: Tensor = self.transform(states) @ embeddings.T + self.bias
        return scores


def hide(
    ids: Tensor, mask: Tensor, share: float, mask_id: int, words: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return the ids with some of them hidden, and the targets: the id where one was chosen, else `UNSEEN`.

    `ids` and `mask` are int64 [n, tokens]; ids lie below `words`.
    """
    chosen = (torch.rand(ids.shape, generator=generator) < share) & inner_tokens(mask)
    lot = torch.rand(ids.shape, generator=generator)
    random_words = torch.randint(words, ids.shape, generator=generator)
    seen = torch.where(chosen & (lot < 0.8), mask_id, ids)
    seen = torch.where(chosen & (lot >= 0.9), random_words, seen)
    return seen, torch.where(chosen, ids, UNSEEN)
