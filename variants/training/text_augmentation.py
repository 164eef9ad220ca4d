"""Random changes of batches of token ids [n, tokens] with an attention mask [n, tokens].

The random deletion and random swap of Wei and Zou, "EDA: Easy Data Augmentation Techniques", EMNLP 2019. The first
and the last token of a row (in BERT, [CLS] and [SEP]) stay where they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from variants.training.batch import Batch


@dataclass(frozen=True, slots=True)
class TokenDropout:
    """Replace each token by `replacement` (the id of [MASK] or [UNK]) with the probability `share`."""

    replacement: int
    share: float = 0.1

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return the batch, ids and mask being its first two inputs, with some tokens replaced."""
        ids, mask = batch.inputs[:2]
        chosen = torch.rand(ids.shape, generator=generator) < self.share
        dropped = ids.masked_fill(chosen & inner_tokens(mask), self.replacement)
        return Batch((dropped, *batch.inputs[1:]), batch.targets)


@dataclass(frozen=True, slots=True)
class TokenSwap:
    """Let two tokens of each row change places, `times` times."""

    times: int = 1

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return the batch, ids and mask being its first two inputs, with tokens swapped; short rows stay."""
        ids, mask = batch.inputs[:2]
        ids = ids.clone()
        rows = torch.arange(len(ids))
        inner = mask.sum(dim=1) - 2
        may = inner >= 2
        for _ in range(self.times):
            draws = torch.rand(2, len(ids), generator=generator) * inner.clamp(min=1)
            first, second = draws.long().clamp(max=(inner - 1).clamp(min=0)) + 1
            first, second = torch.where(may, first, 0), torch.where(may, second, 0)
            ids[rows, first], ids[rows, second] = ids[rows, second], ids[rows, first]
        return Batch((ids, *batch.inputs[1:]), batch.targets)


def inner_tokens(mask: Tensor) -> Tensor:
    """Return which tokens, bool [n, tokens], are neither padding nor the first or last of their row."""
    places = torch.arange(mask.shape[1])
    return (places >= 1) & (places < mask.sum(dim=1, keepdim=True) - 1)
