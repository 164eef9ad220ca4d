"""Every runtime opens its files, answers as onnxruntime does, and says in one line what is wrong."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from service.memory import resident_bytes
from tests.variants.conftest import save_word_stages
from tests.variants.runtime_files import WEIGHTS, inputs, save_for, save_onnx
from variants.resident import give_back
from variants.runtimes import onnxruntime_cpu, openvino_cpu, table
from variants.runtimes.contract import Model
from variants.runtimes.table import RUNTIMES, copies_of
from variants.session import ModelLoadError, Session, SessionClosedError, SessionOptions, open_session

HERE = ("openvino", "litert", "torch")


@pytest.mark.parametrize("runtime", HERE)
@pytest.mark.parametrize("options", [SessionOptions(), SessionOptions(threads=2, slots=2)])
def test_a_runtime_answers_as_onnxruntime_does(tmp_path: Path, runtime: str, options: SessionOptions) -> None:
    """One row and any number of rows, by the names of the graph, and the caller may keep what it gets."""
    path = save_for(runtime, tmp_path)
    reference, session = open_session(tmp_path / "model.onnx"), open_session(path, options, runtime=runtime)
    assert (reference.input_names, reference.output_names) == (session.input_names, session.output_names)
    kept = {rows: session.run({"x": inputs(rows)})["logits"] for rows in (1, 2, 3, 5, 11)}
    for rows, logits in kept.items():
        assert np.float32 == logits.dtype
        np.testing.assert_allclose(reference.run({"x": inputs(rows)})["logits"], logits, atol=1e-5)


@pytest.mark.parametrize("runtime", HERE)
def test_threads_share_a_session(tmp_path: Path, runtime: str) -> None:
    """More callers than slots at a time each get the answer to their own rows."""
    session = open_session(save_for(runtime, tmp_path), SessionOptions(slots=2), runtime=runtime)
    sizes = [1 + number % 7 for number in range(64)]
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda rows: session.run({"x": inputs(rows)})["logits"], sizes))
    for rows, logits in zip(sizes, answers, strict=True):
        np.testing.assert_allclose(inputs(rows) @ WEIGHTS, logits, atol=1e-5)


@pytest.mark.parametrize("runtime", HERE)
def test_a_missing_input_is_an_error(tmp_path: Path, runtime: str) -> None:
    """It is raised to who runs the batch, and the session goes on answering."""
    session = open_session(save_for(runtime, tmp_path), runtime=runtime)
    with pytest.raises(KeyError):
        session.run({"y": inputs(1)})
    np.testing.assert_allclose(inputs(1) @ WEIGHTS, session.run({"x": inputs(1)})["logits"], atol=1e-5)


@pytest.mark.parametrize("runtime", HERE)
def test_closing_gives_memory_back(tmp_path: Path, runtime: str) -> None:
    """Of 64 MB of weights most leave the process, though a reference to the session is left, which answers no more."""
    session = open_session(save_for(runtime, tmp_path, np.ones((4096, 4096), np.float32)), runtime=runtime)
    session.run({"x": np.ones((1, 4096), np.float32)})
    before_bytes = resident_bytes()
    session.close()
    give_back()
    assert before_bytes - resident_bytes() > 32_000_000
    with pytest.raises(SessionClosedError):
        session.run({"x": np.ones((1, 4096), np.float32)})


@pytest.mark.parametrize("runtime", HERE)
@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
        lambda path: path.write_bytes(b"\xff" * 4096),
    ],
    ids=["missing", "empty", "cut", "garbage"],
)
def test_a_file_that_is_no_model_is_named(tmp_path: Path, runtime: str, damage: Callable[[Path], object]) -> None:
    """Opening a damaged file raises one line with its name."""
    path = save_for(runtime, tmp_path)
    damage(path)
    with pytest.raises(ModelLoadError) as caught:
        open_session(path, runtime=runtime)
    assert str(caught.value).startswith(f"{path}: cannot be opened as a model: ")
    assert 1 == len(str(caught.value).splitlines())


@pytest.mark.parametrize("runtime", HERE)
def test_a_runtime_that_is_not_installed_is_said(tmp_path: Path, runtime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line: what is missing and what installs it."""
    path = save_for(runtime, tmp_path)
    monkeypatch.setattr(table, "find_spec", lambda name: None)
    with pytest.raises(ModelLoadError) as caught:
        open_session(path, runtime=runtime)
    remedy = f'pip install -e ".[{runtime}]" in a checkout installs it'
    assert f"{path}: the runtime {runtime} is not installed: {remedy}" == str(caught.value)


def test_an_unknown_runtime_is_said(tmp_path: Path) -> None:
    """A manifest of a later version may name one; its variant is refused."""
    with pytest.raises(ModelLoadError, match="the runtime 'abacus' is not known to this version"):
        open_session(save_onnx(tmp_path / "model.onnx"), runtime="abacus")


def test_states_between_stages_keep_their_tokens(tmp_path: Path) -> None:
    """A stage that is run with more tokens than a batch has gives a state of those that it has."""
    save_word_stages(tmp_path, np.ones((9, 2), np.float32))
    ids = np.ones((3, 5), np.int64)
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    options = SessionOptions(longest=16)
    first, second = (open_session(tmp_path / f"words-{n}.onnx", options, runtime="openvino") for n in (0, 1))
    state = first.run(feeds)["hidden_0"]
    assert (3, 5, 2) == state.shape
    np.testing.assert_allclose(
        np.full((3, 2), 5.0), second.run({"hidden_0": state, "attention_mask": feeds["attention_mask"]})["logits"]
    )


def test_a_broken_runtime_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a package raises where it cannot be used, its variants are refused in one line."""

    def broken() -> bool:
        raise OSError("libplugin.so: cannot open\nshared object file")

    monkeypatch.setattr(openvino_cpu, "can_bfloat16", broken)
    reason = "the runtime openvino-bf16 is broken here: libplugin.so: cannot open shared object file"
    assert reason == RUNTIMES["openvino-bf16"].lack()
    with pytest.raises(ModelLoadError, match=reason):
        open_session(save_onnx(tmp_path / "model.onnx"), runtime="openvino-bf16")


def test_a_runtimes_own_start_belongs_to_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is prepared before the clock of opening starts."""
    said: list[str] = []
    opened = openvino_cpu.open_model

    def open_model(*given: Any) -> Model:
        said.append("opened")
        return opened(*given)

    def clock() -> float:
        said.append("clock")
        return 0.0

    monkeypatch.setattr(openvino_cpu, "prepare", lambda: said.append("prepared"))
    monkeypatch.setattr(openvino_cpu, "open_model", open_model)
    monkeypatch.setattr(time, "perf_counter", clock)
    open_session(save_onnx(tmp_path / "model.onnx"), runtime="openvino")
    assert ["prepared", "clock", "opened", "clock"] == said


def test_memory_is_counted_by_slots() -> None:
    """Of LiteRT each slot has a copy of its own; what the others keep, slots share."""
    assert {"litert": 3, "openvino": 1, "torch": 1, "onnxruntime": 1, "abacus": 1} == {
        name: copies_of(name, 3) for name in ("litert", "openvino", "torch", "onnxruntime", "abacus")
    }


def test_sessions_are_told_apart_by_their_runtime(tmp_path: Path) -> None:
    """The same file under two runtimes is two sessions, each with its own seconds and memory."""
    path = save_onnx(tmp_path / "model.onnx")
    sessions: list[Session] = [open_session(path, runtime=name) for name in ("onnxruntime", "openvino")]
    assert all(session.load_s > 0.0 and session.memory_bytes >= 0 for session in sessions)


def test_onnxruntime_is_warmed_by_a_model_that_there_is() -> None:
    """It is one by ONNX's own rules, and gives back what it gets."""
    onnx.checker.check_model(onnx.load_from_string(onnxruntime_cpu._ECHO))
    onnxruntime_cpu.warm()
    session = onnxruntime.InferenceSession(onnxruntime_cpu._ECHO, providers=list(onnxruntime_cpu.PROVIDERS))
    assert [2.5] == session.run(None, {"x": np.array([2.5], np.float32)})[0].tolist()
