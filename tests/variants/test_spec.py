"""A family's data has to be what its spec says it is, before anything is trained on it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from variants.families import BUILT_IN, load_family
from variants.spec import Dataset, LabelledRows, check_dataset

DIGITS = load_family("digits")


def part(width: int = 64, labels: tuple[int, ...] = (0, 9), name: str = "image") -> LabelledRows:
    return LabelledRows({name: np.zeros((len(labels), width), np.float32)}, np.array(labels, np.int64))


def test_data_that_fits_the_spec_passes() -> None:
    """Shapes, names and labels as the spec has them."""
    check_dataset(Dataset(part(), part(), part()), DIGITS)


@pytest.mark.parametrize(
    ("bad", "fault"),
    [
        (part(width=63), r"validation part has image of shape \[2, 63\] for 2 labels, the spec says \[-1, 64\]"),
        (part(labels=(0, 10)), "validation part has labels 0 to 10, the spec names 10"),
        (part(labels=(-1, 1)), "validation part has labels -1 to 1"),
        (part(labels=()), "validation part has no rows"),
        (part(name="picture"), "validation part has inputs \\['picture'\\], the spec says 'image'"),
        (dataclasses.replace(part(), labels=np.array([1])), "for 1 labels"),
    ],
)
def test_data_that_does_not_fit_is_refused_by_part_and_fault(bad: LabelledRows, fault: str) -> None:
    """The message says which part, what it has and what the spec says."""
    with pytest.raises(ValueError, match=fault):
        check_dataset(Dataset(part(), bad, part()), DIGITS)


@pytest.mark.parametrize("name", BUILT_IN)
def test_families_that_come_along_are_found_by_their_name(name: str) -> None:
    """The name by which a family is asked for is the one under which it is stored."""
    assert name == load_family(name).name
