"""Rows to train on: which share a batch, how they are cut, and which of them have labels."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.networks import digits, encoder, sentences
from variants.training.model import logits_of
from variants.training.rows import Rows


def test_batches_of_text_are_cut_to_their_longest_row() -> None:
    """Rows with a mask lose padding that no row of the batch needs, and the network answers the same without it."""
    rows = sentences().train
    shortest = rows.inputs[1].sum(dim=1).argsort()[:20]
    cut = rows.take(shortest)
    assert int(rows.inputs[1][shortest].sum(dim=1).max()) == cut.inputs[0].shape[1] < rows.inputs[0].shape[1]
    whole = Rows(tuple(values[shortest] for values in rows.inputs), rows.labels[shortest])
    network = encoder().module
    torch.testing.assert_close(logits_of(network, cut), logits_of(network, whole))


@given(st.lists(st.integers(1, 30), min_size=1, max_size=400), st.integers(1, 40), st.integers(0, 2**31))
def test_shuffled_text_shares_batches_with_text_of_its_length(lengths: list[int], size: int, seed: int) -> None:
    """Every row is there once in a pass, batches are as large as asked for but one, and no rows are padded more.

    The one that is not full counts as long as the longest row of all: which rows are left for it is chance.
    """
    mask = (torch.arange(30) < torch.tensor(lengths)[:, None]).long()
    rows = Rows((mask, mask), torch.zeros(len(lengths), dtype=torch.int64), mask=1)
    batches = list(rows.batches(size, torch.Generator().manual_seed(seed)))
    assert list(range(len(lengths))) == torch.cat(batches).sort().values.tolist()
    assert sorted(map(len, batches), reverse=True)[:-1] == [size] * (len(batches) - 1)
    longest, shuffled = max(lengths), torch.randperm(len(lengths), generator=torch.Generator().manual_seed(seed))
    sorted_tokens, random_tokens = (
        sum(len(batch) * (int(mask[batch].sum(dim=1).max()) if len(batch) == size else longest) for batch in part)
        for part in (batches, shuffled.split(size))
    )
    assert sorted_tokens <= random_tokens


@pytest.mark.parametrize("count", [10, 37, 400])
def test_labelled_rows_are_drawn_evenly(count: int) -> None:
    """As many rows as asked for, of every class as many as of any other up to one; all rows are there unlabelled."""
    few = digits().with_labels(count, seed=3)
    assert len(few.train) == count
    counts = torch.bincount(few.train.labels)
    if count < 300:
        assert int(counts.max() - counts.min()) <= 1
    assert few.unlabelled is digits().train
    more = digits().with_labels(min(400, count + 5), seed=3)
    kept = {tuple(image.flatten().tolist()) for image in more.train.inputs[0]}
    assert all(tuple(image.flatten().tolist()) in kept for image in few.train.inputs[0])


def test_too_few_labels_are_refused() -> None:
    """A label for every class is the least there can be."""
    with pytest.raises(ValueError, match="9 labelled rows of 400, in 10 classes"):
        digits().with_labels(9, seed=0)
