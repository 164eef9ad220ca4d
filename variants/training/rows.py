"""Rows as a network takes them: tensors with labels, in the parts that training may see."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

BATCHES_SORTED_TOGETHER = 16
"""Rows are sorted by length within this many random batches, which halves the padding and keeps batches random."""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Prepared rows: one tensor [n, ...] per argument of the network, in order, and `labels` int64 [n].

    Rows that are learnt from and nothing else may have shares of the classes, float32 [n, k], for labels.

    `mask` is the position, among the inputs, of an attention mask int64 [n, tokens]; batches are then cut to their
    longest row, in every input of the mask's length. Raises `ValueError` where the lengths differ.
    """

    inputs: tuple[Tensor, ...]
    labels: Tensor
    mask: int | None = None

    def __post_init__(self) -> None:
        if any(len(values) != len(self.labels) for values in self.inputs):
            raise ValueError(f"inputs of {[len(values) for values in self.inputs]} rows for {len(self.labels)} labels")

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Tensor | slice) -> Rows:
        """Return the chosen rows, cut to the longest of them where there is a mask."""
        inputs = tuple(values[rows] for values in self.inputs)
        if self.mask is not None and len(inputs[self.mask]):
            tokens = inputs[self.mask].shape[1]
            longest = int(inputs[self.mask].sum(dim=1).max())
            inputs = tuple(
                values[:, :longest] if values.dim() > 1 and values.shape[1] == tokens else values for values in inputs
            )
        return replace(self, inputs=inputs, labels=self.labels[rows])

    def batches(self, size: int, generator: torch.Generator | None = None) -> Iterator[Tensor]:
        """Yield the row numbers of one pass, int64 [<= size]: shuffled by the generator, in order without one.

        Where there is a mask, shuffled rows of like length share a batch: see `BATCHES_SORTED_TOGETHER`.
        """
        if generator is None:
            yield from torch.arange(len(self)).split(size)
            return
        order = torch.randperm(len(self), generator=generator)
        if self.mask is None:
            yield from order.split(size)
            return
        lengths = self.inputs[self.mask].sum(dim=1)
        groups: list[Tensor] = []
        for pool in order.split(size * BATCHES_SORTED_TOGETHER):
            groups += pool[lengths[pool].argsort(stable=True)].split(size)
        for group in torch.randperm(len(groups), generator=generator).tolist():
            yield groups[group]


@dataclass(frozen=True, slots=True, eq=False)
class TrainingData:
    """What a recipe may see: rows to learn from, rows to choose by, and rows whose labels nobody knows.

    The test part is not here on purpose. The labels of `unlabelled` are never read; without any, self-supervised
    recipes take the inputs of `train`.
    """

    train: Rows
    validation: Rows
    unlabelled: Rows | None = None

    def with_labels(self, count: int, seed: int) -> TrainingData:
        """Return the data with `count` labelled rows, as even over the classes as can be; all rows as unlabelled ones.

        Raises `ValueError` where there are fewer rows, or fewer than one for each class.
        """
        classes = self.train.labels.unique()
        if not len(classes) <= count <= len(self.train):
            raise ValueError(f"{count} labelled rows of {len(self.train)}, in {len(classes)} classes: choose between")
        order = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(seed))
        shuffled = self.train.labels[order]
        # The place of each row among those of its own class: taking the lowest places first goes round the classes.
        place = torch.empty(len(order), dtype=torch.int64)
        for label in classes.tolist():
            of_label = (shuffled == label).nonzero().squeeze(1)
            place[of_label] = torch.arange(len(of_label))
        chosen = order[place.argsort(stable=True)[:count]]
        return replace(self, train=_whole(self.train, chosen), unlabelled=self.unlabelled or self.train)


def _whole(rows: Rows, chosen: Tensor) -> Rows:
    """Rows that stay a part keep their padding: only batches are cut."""
    return replace(rows, inputs=tuple(values[chosen] for values in rows.inputs), labels=rows.labels[chosen])
