"""The fixed shapes that on-device files are made for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from variants.preparation import ATTENTION_MASK, Feeds

BATCHES = (1, 4)
"""Rows of the signatures of a LiteRT variant. With 4 rows a row of 32 tokens takes 0.66 of the time that it takes alone
(4-layer text encoder), with 16 rows 0.61."""


class Signature(NamedTuple):
    """A name, and by input, in the graph's order, shape and numpy type."""

    name: str
    shapes: Mapping[str, Sequence[int]]
    types: Mapping[str, str]


def signature(feeds: Feeds, rows: int, tokens: int) -> Signature:
    """Return the signature of so many rows like those of `feeds`, of text with so many tokens."""
    is_text = ATTENTION_MASK in feeds
    shapes = {name: (rows, tokens) if is_text else (rows, *array.shape[1:]) for name, array in feeds.items()}
    name = f"rows_{rows}_tokens_{tokens}" if is_text else f"rows_{rows}"
    return Signature(name, shapes, {name: str(array.dtype) for name, array in feeds.items()})


def signatures(feeds: Feeds, sizes: Sequence[int]) -> list[Signature]:
    """Return the signatures of a variant that is served: each size class with each number of rows."""
    return [signature(feeds, rows, size) for size in sizes for rows in BATCHES]
