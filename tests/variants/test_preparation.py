"""Rows are the same for every variant, whoever shares their batch; what is no row is refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from variants.preparation import (
    ATTENTION_MASK,
    CHARACTERS_PER_TOKEN,
    INPUT_IDS,
    LOGITS,
    InputError,
    Preparer,
    decode,
    open_preparation,
)
from variants.repository import RepositoryError, RevisionFolder
from variants.session import open_session


@pytest.fixture
def numbers(tiny: RevisionFolder) -> Preparer:
    return open_preparation(tiny)


@pytest.fixture
def text(words: RevisionFolder) -> Preparer:
    return open_preparation(words)


def _texts(*values: object) -> dict[str, Any]:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return {"text": array}


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int64, np.uint8])
def test_numbers_become_scaled_float32(numbers: Preparer, dtype: type[np.generic]) -> None:
    """Whatever number type comes, rows are float32 `(x - mean) / scale`, of size 1."""
    rows = numbers.prepare({"x": np.array([[1, 3, 5, 7], [0, 1, 2, 3]], dtype)})
    feeds = numbers.collate(rows.values)
    assert [1, 1] == rows.sizes
    assert [[0.0, 1.0, 2.0, 3.0], [-0.5, 0.0, 0.5, 1.0]] == feeds["x"].tolist()
    assert np.float32 == feeds["x"].dtype


def test_rows_of_several_requests_share_a_batch(numbers: Preparer) -> None:
    """Collating rows of two requests keeps their order; one row alone is the same row."""
    first = numbers.prepare({"x": np.full((2, 4), 1.0)}).values
    second = numbers.prepare({"x": np.full((1, 4), 3.0)}).values
    assert [0.0, 0.0, 1.0] == numbers.collate([*first, *second])["x"][:, 0].tolist()
    assert (1, 4) == numbers.collate(second)["x"].shape


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((2, 3)), r"expected shape \['at least 1', 4\], got \[2, 3\]"),
        (np.zeros((0, 4)), r"got \[0, 4\]"),
        (np.zeros(4), r"got \[4\]"),
        (np.zeros(()), r"got \[\]"),
        (np.array([[0.0] * 4, [0.0, np.nan, 0.0, 0.0]]), "row 1 holds a value that is not a finite"),
        (np.array([[np.inf, 0.0, 0.0, 0.0]]), "row 0 holds a value that is not a finite"),
        (np.full((1, 4), 1e300), "row 0 holds a value that is not a finite"),
        (np.array([["a", "b", "c", "d"]]), "expected numbers"),
        (np.zeros((1, 4), complex), "expected numbers"),
    ],
)
def test_what_is_no_row_of_numbers_is_refused(numbers: Preparer, value: Any, message: str) -> None:
    """Wrong shape, wrong type, nothing and not finite are refused with the input and the row."""
    with pytest.raises(InputError, match=f"input 'x': .*{message}"):
        numbers.prepare({"x": value})


def test_exactly_the_declared_input_is_expected(numbers: Preparer) -> None:
    """A missing and a superfluous input are both refused by name."""
    with pytest.raises(InputError, match=r"input 'x' is missing, got \['y'\]"):
        numbers.prepare({"y": np.zeros((1, 4))})
    with pytest.raises(InputError, match="input 'y' is unknown, expected 'x'"):
        numbers.prepare({"x": np.zeros((1, 4)), "y": np.zeros((1, 4))})


def test_text_becomes_tokens_without_padding(text: Preparer) -> None:
    """A text is its token ids between the special ones, bytes and `str` alike, whatever padding the tokenizer had."""
    expected = [[2, 4, 7, 3], [2, 6, 5, 7, 8, 3]]
    for inputs in (_texts(b"good day", b"very bad days"), _texts("Good DAY", "very bad days")):
        rows = text.prepare(inputs)
        assert expected == [row.tolist() for row in rows.values]
        assert [4, 6] == rows.sizes
    column = _texts(b"good day", b"very bad days")["text"].reshape(2, 1)
    assert expected == [row.tolist() for row in text.prepare({"text": column}).values]


def test_text_is_padded_to_the_longest_row_of_the_batch(text: Preparer) -> None:
    """Shorter rows are padded behind and masked; one row alone is not padded."""
    rows = text.prepare(_texts(b"good", b"very bad days")).values
    feeds = text.collate(rows)
    assert [[2, 4, 3, 0, 0, 0], [2, 6, 5, 7, 8, 3]] == feeds[INPUT_IDS].tolist()
    assert [[1, 1, 1, 0, 0, 0], [1] * 6] == feeds[ATTENTION_MASK].tolist()
    alone = text.collate(rows[:1])
    assert ([[2, 4, 3]], [[1, 1, 1]]) == (alone[INPUT_IDS].tolist(), alone[ATTENTION_MASK].tolist())
    assert {np.dtype(np.int64)} == {values.dtype for feed in (feeds, alone) for values in feed.values()}


def test_long_text_is_cut(text: Preparer) -> None:
    """No row has more tokens than the family allows, and text past the bound on characters is not read."""
    assert [8] == text.prepare(_texts(b"good " * 1000)).sizes
    blanks = b" " * (8 * CHARACTERS_PER_TOKEN)
    assert [3, 2] == text.prepare(_texts(blanks[:-4] + b"good", blanks + b"good")).sizes


def test_empty_text_is_a_row(text: Preparer) -> None:
    """A text of no words is a row of the special tokens."""
    assert [2] == text.prepare(_texts(b"")).sizes


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (_texts(b"good", b"ab\xff"), r"row 1 is not valid UTF-8 \(byte 0xff at offset 2\)"),
        (_texts(b"good", 3), "row 1 is int, expected text"),
        (_texts(), r"expected shape \['at least 1'\], got \[0\]"),
        ({"text": np.array([[b"a", b"b"]], dtype=object)}, r"got \[1, 2\]"),
        ({"text": np.array(b"a", dtype=object)}, r"got \[\]"),
    ],
)
def test_what_is_no_text_is_refused(text: Preparer, inputs: dict[str, Any], message: str) -> None:
    """Bytes that are not UTF-8, other types and other shapes are refused with the input and the row."""
    with pytest.raises(InputError, match=f"input 'text': .*{message}"):
        text.prepare(inputs)


def test_padding_does_not_change_an_answer(words: RevisionFolder, text: Preparer) -> None:
    """A row's logits are the same alone and padded in a batch, through the real session."""
    session = open_session(words.file("sum/model.onnx"))
    rows = text.prepare(_texts(b"good", b"very bad days", b"good good day")).values
    together = session.run(text.collate(rows))[LOGITS]
    alone = [session.run(text.collate([row]))[LOGITS][0].tolist() for row in rows]
    assert [[0.0, 2.0], [2.0, 0.0], [0.0, 4.0]] == alone
    assert alone == together.tolist()


def test_a_damaged_tokenizer_is_named(words: RevisionFolder) -> None:
    """A tokenizer file that is cut raises one line with the file."""
    path = words.file("tokenizer.json")
    path.write_text(path.read_text()[:100])
    with pytest.raises(RepositoryError, match=r"tokenizer\.json: cannot be read as a tokenizer"):
        open_preparation(words)


@given(
    logits=arrays(
        np.float32,
        array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=6),
        elements=st.floats(-(2.0**100), 2.0**100, width=32),
    ),
    temperature=st.floats(0.1, 10.0),
)
def test_probabilities_are_probabilities(logits: Any, temperature: float) -> None:
    """Probabilities are finite, sum to one, and the label has the largest; temperature never changes a label."""
    answers = decode(logits, temperature)
    np.testing.assert_allclose(np.ones(len(logits)), answers.probabilities.sum(axis=1), rtol=1e-5)
    chosen = answers.probabilities[np.arange(len(logits)), answers.labels]
    assert answers.confidences.tolist() == chosen.tolist()
    assert decode(logits, 1.0).labels.tolist() == answers.labels.tolist()
    assert (np.dtype(np.int64), np.dtype(np.float32)) == (answers.labels.dtype, answers.probabilities.dtype)


def test_temperature_softens() -> None:
    """Logits of log 9 to 0 are 90 % at temperature 1 and 75 % at temperature 2."""
    logits = np.array([[np.log(9.0), 0.0]], np.float32)
    found = [float(decode(logits, temperature).confidences[0]) for temperature in (1.0, 2.0)]
    assert pytest.approx([0.9, 0.75], rel=1e-6) == found
