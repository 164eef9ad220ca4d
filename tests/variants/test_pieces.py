"""Batches that take much memory run in pieces: the same answers, in less of it, and planned as what they take."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.service.families import write_chain, write_family
from tests.service.test_residency import bulky_model
from tests.variants.reported import FOOTPRINT, chain_profile
from variants.pieces import MOST_BYTES, InPieces, cells_at_once, cells_of_files, profile_in_pieces, rows_at_once
from variants.preparation import ATTENTION_MASK
from variants.profiles import FamilyProfile
from variants.profiling import profile_family
from variants.repository import Repository, RevisionFolder
from variants.runtimes.contract import Tensors

HUGE = 4 * MOST_BYTES


class Doubling:
    """A model that gives its inputs twice over and remembers the rows of each run."""

    input_names = ("x", ATTENTION_MASK)
    output_names = ("y",)

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.is_closed = False

    def run(self, feeds: Tensors) -> dict[str, NDArray[Any]]:
        self.rows.append(len(feeds["x"]))
        return {"y": 2 * feeds["x"]}

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def chain(tmp_path: Path) -> RevisionFolder:
    """Two exits of one network, and its stages; batches of up to four rows."""
    write_chain(Repository(tmp_path), "chain")
    return Repository(tmp_path).open("chain")


def taking(profile: FamilyProfile, **batch_bytes: int | None) -> FamilyProfile:
    """The profile with what the largest batches of variants take, and no footprints."""
    tables = {
        name: table.model_copy(update={"batch_bytes": batch_bytes.get(name)})
        for name, table in profile.variants.items()
    }
    return profile.model_copy(update={"variants": tables, "footprints": {}})


@pytest.mark.parametrize(
    ("rows", "tokens", "cells", "piece"),
    [
        (32, 64, 2048, 32),
        (32, 64, 2047, 16),
        (32, 64, 256, 4),
        (9, 64, 256, 3),
        (3, 64, 10, 1),
        (32, 1, 8, 8),
        (5, 0, 1, 1),
        (0, 64, 256, 0),
    ],
)
def test_pieces_are_as_large_as_may_be_and_alike(rows: int, tokens: int, cells: int, piece: int) -> None:
    """As few pieces as hold all rows, none with less than a row, none much smaller than the others."""
    assert piece == rows_at_once(rows, tokens, cells)


@given(st.integers(1, 300), st.integers(0, 200), st.integers(1, 10_000))
def test_no_piece_is_too_large_and_none_too_many(rows: int, tokens: int, cells: int) -> None:
    """A piece of more than one row has no more cells than it may, and fewer pieces would not do."""
    piece = rows_at_once(rows, tokens, cells)
    most = max(1, cells // max(1, tokens))
    assert 1 <= piece <= min(rows, most)
    assert -(-rows // piece) == -(-rows // most)


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 100))
def test_pieces_answer_as_the_whole_does(rows: int, tokens: int, cells: int) -> None:
    """All rows are answered, in order, by pieces that are small enough."""
    model = Doubling()
    feeds: Mapping[str, NDArray[Any]] = {
        "x": np.arange(rows * tokens, dtype=np.float32).reshape(rows, tokens),
        ATTENTION_MASK: np.ones((rows, tokens), np.int64),
    }
    assert np.array_equal(2 * feeds["x"], InPieces(model, cells).run(feeds)["y"])
    assert rows == sum(model.rows)
    assert all(ran == 1 or ran * tokens <= cells for ran in model.rows)


def test_rows_without_tokens_count_as_one() -> None:
    """A tensor is one cell, whatever its shape; closing closes the model."""
    model = Doubling()
    pieces = InPieces(model, 3)
    pieces.run({"x": np.zeros((7, 100), np.float32)})
    pieces.close()
    assert ([3, 3, 1], True) == (model.rows, model.is_closed)


def test_what_takes_little_or_is_not_known_runs_whole(chain: RevisionFolder) -> None:
    """Pieces are for what was seen to take more than a batch may, and for the stages that it is made of."""
    manifest, profile = chain.manifest, chain_profile(chain)
    assert {} == cells_at_once(manifest, taking(profile))
    assert {} == cells_at_once(manifest, taking(profile, small=MOST_BYTES, large=0))
    found = cells_at_once(manifest, taking(profile, small=0, large=HUGE))
    assert {"large": 1, "first": 1, "second": 1} == found
    assert {"large/model.onnx": 1, "stages/first.onnx": 1, "stages/second.onnx": 1} == cells_of_files(
        manifest, taking(profile, large=HUGE)
    )


def test_an_older_profile_has_it_as_a_footprint(chain: RevisionFolder) -> None:
    """What a process of its own came to with the largest batches, beyond what it had with the model open."""
    footprint = FOOTPRINT.model_copy(update={"loaded_bytes": 1, "peak_bytes": HUGE // 2 + 1})
    profile = taking(chain_profile(chain)).model_copy(update={"footprints": {"small": footprint}})
    assert {"small": 2, "first": 2} == cells_at_once(chain.manifest, profile)


def test_a_batch_takes_as_long_as_its_pieces(chain: RevisionFolder) -> None:
    """Four rows in pieces of one take four times as long as one, the tail one long piece more; others are as before."""
    profile = chain_profile(chain)
    small, large = profile.variants["small"], profile.variants["large"]
    sudden = large.model_copy(update={"median_s": ((0.004, 0.1),), "tail_s": ((0.006, 0.2),), "batch_bytes": HUGE})
    found = profile_in_pieces(
        chain.manifest, taking(profile.model_copy(update={"variants": {"small": small, "large": sudden}}), large=HUGE)
    )
    assert [0.004, 0.016] == pytest.approx(found.variants["large"].median_s[0])
    assert [0.006, 0.018] == pytest.approx(found.variants["large"].tail_s[0])
    assert small.median_s == found.variants["small"].median_s


PIECES = """
import sys
from pathlib import Path
from variants.preparation import open_preparation
from variants.profiling import batch_work, rows_by_class
from variants.repository import Repository
from variants.resident import taken_by
from variants.session import SessionOptions, open_file

folder = Repository(Path(sys.argv[1])).open("wide")
preparer = open_preparation(folder)
rows = rows_by_class(folder, preparer)[0][:4]
work = batch_work(open_file(folder, folder.manifest.variant("only").model, SessionOptions(cells=1)), preparer, 1.0)
work(rows)
print(taken_by(lambda: work(rows)))
"""


def test_a_profile_knows_what_the_largest_batch_takes_and_pieces_take_less(tmp_path: Path) -> None:
    """Four rows of eight million bytes each are measured as such; in pieces of one, a quarter of them is there."""
    write_family(Repository(tmp_path), "wide", {"only": (bulky_model(bulk=2_000_000), 0.8)})
    taken = profile_family(Repository(tmp_path).open("wide")).variants["only"].batch_bytes
    if taken is None:
        pytest.skip("this machine does not tell how much memory there was at the most")
    assert 24e6 < taken < 48e6
    # Where the C library gives back what is freed at once; else it may keep one piece beside the next.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000"}
    command, root = [sys.executable, "-c", PIECES, str(tmp_path)], Path(__file__).resolve().parents[2]
    said = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=True).stdout
    assert 7e6 < int(said) < 16e6
