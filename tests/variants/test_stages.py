"""States are cut to their rows, padded again and handed on; evidence is what all variants answered on the same rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from variants.evidence import read_evidence
from variants.repository import RevisionFolder
from variants.session import Session, open_session
from variants.stages import collate_states, cut_states, run_each, run_stages

WIDTH = 2


class Stage:
    """A stage that is only asked for its inputs."""

    def __init__(self, *input_names: str) -> None:
        self.input_names = input_names


TEXT: Any = Stage("attention_mask", "hidden_3")
TENSORS: Any = Stage("features")


@given(st.lists(st.integers(1, 6), min_size=1, max_size=6))
def test_states_are_padded_to_the_longest_of_their_batch(lengths: list[int]) -> None:
    """Each row keeps its own tokens, the rest is zero and masked, and cutting gives back what was joined."""
    states = [np.full((length, WIDTH), row + 1, np.float32) for row, length in enumerate(lengths)]
    feeds = collate_states(TEXT, states)
    assert {"hidden_3", "attention_mask"} == set(feeds)
    assert (len(lengths), max(lengths), WIDTH) == feeds["hidden_3"].shape
    assert lengths == feeds["attention_mask"].sum(axis=1).tolist()
    assert [WIDTH * length * (row + 1) for row, length in enumerate(lengths)] == feeds["hidden_3"].sum((1, 2)).tolist()
    cut = cut_states(TEXT, feeds["hidden_3"], lengths)
    assert all(np.array_equal(before, after) for before, after in zip(states, cut, strict=True))
    assert all(np.shares_memory(state, feeds["hidden_3"]) for state in cut)


@given(st.integers(1, 5))
def test_states_of_tensors_have_no_length(rows: int) -> None:
    """Without a mask a state has one shape for all rows, and is stacked and taken apart as it is."""
    state = np.arange(rows * 6, dtype=np.float32).reshape(rows, 3, 2)
    cut = cut_states(TENSORS, state, [1] * rows)
    assert np.array_equal(state, collate_states(TENSORS, cut)["features"])
    assert ["features"] == list(collate_states(TENSORS, cut))


def adding_stage(path: Path, source: str, target: str | None) -> Session:
    """A stage on float32 [n, 2]: `logits` is its input doubled, and so is `target`, the state, where there is one."""
    names = ["logits", *filter(None, [target])]
    graph = helper.make_graph(
        [helper.make_node("Add", [source, source], [name]) for name in names],
        "stage",
        [helper.make_tensor_value_info(source, TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in names],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return open_session(path)


def test_a_path_can_be_left_and_taken_up_again(tmp_path: Path) -> None:
    """Running on from the state after any stage gives what running through gives."""
    path = [
        adding_stage(tmp_path / "0.onnx", "x", "once"),
        adding_stage(tmp_path / "1.onnx", "once", "twice"),
        adding_stage(tmp_path / "2.onnx", "twice", None),
    ]
    x = np.array([[1, 2], [3, 4]], np.float32)
    through = list(run_each(path, {"x": x}))
    assert [(x * 2).tolist(), (x * 4).tolist(), (x * 8).tolist()] == [answer.logits.tolist() for answer in through]
    assert through[-1].state is None
    for at in (1, 2):
        state = run_stages(path[:at], {"x": x}).state
        assert state is not None
        feeds = collate_states(path[at], cut_states(path[at - 1], state, [1, 1]))
        assert np.array_equal(x * 8, run_stages(path[at:], feeds).logits)


def save_answers(folder: RevisionFolder, variant: str, label: list[int], predicted: list[int]) -> None:
    np.savez(
        folder.path / variant / "calibration.npz",
        label=np.array(label),
        predicted=np.array(predicted),
        confidence=np.linspace(0.5, 0.9, len(label)).astype(np.float32),
        sample_predicted=np.zeros(20, np.int64),
        sample_confidence=np.full(20, 0.5, np.float32),
    )


def test_evidence_is_in_the_order_asked_for(tiny: RevisionFolder) -> None:
    """One line for each variant: where it was right on the validation part, and how sure it was."""
    save_answers(tiny, "small", [0, 1, 2], [0, 0, 2])
    save_answers(tiny, "big", [0, 1, 2], [0, 1, 0])
    evidence = read_evidence(tiny, ["big", "small"])
    assert evidence is not None
    assert [[True, True, False], [True, False, True]] == evidence.correct.tolist()
    assert (2, 3) == evidence.confidence.shape
    assert evidence.confidence.dtype == np.float32
    only = read_evidence(tiny, ["small"])
    assert only is not None
    assert [[True, False, True]] == only.correct.tolist()


@pytest.mark.parametrize("label", [[0, 1], [0, 1, 1]])
def test_answers_on_other_rows_are_no_evidence(tiny: RevisionFolder, label: list[int]) -> None:
    """Parts of another length or with other labels cannot be compared."""
    save_answers(tiny, "small", [0, 1, 2], [0, 0, 2])
    save_answers(tiny, "big", label, [0] * len(label))
    assert read_evidence(tiny, ["small", "big"]) is None


def test_without_answers_there_is_no_evidence(tiny: RevisionFolder) -> None:
    """A variant whose answers cannot be read leaves the family without evidence."""
    tiny.file("big/calibration.npz").unlink()
    assert read_evidence(tiny, ["small", "big"]) is None
    assert read_evidence(tiny, ["small"]) is not None
