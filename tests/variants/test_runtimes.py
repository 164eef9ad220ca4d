"""Every runtime opens its files, answers as onnxruntime does, and says in one line what is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from service.memory import give_back, resident_bytes
from tests.tflite import save_tflite
from tests.variants.conftest import save_word_model, save_word_stages
from variants.porting.program import write_program
from variants.runtimes import openvino_cpu, table
from variants.runtimes.contract import Model
from variants.runtimes.litert import piece
from variants.runtimes.padding import round_up
from variants.runtimes.table import RUNTIMES, copies_of
from variants.session import ModelLoadError, Session, SessionClosedError, SessionOptions, open_session

ROOT = Path(__file__).resolve().parents[2]
COLUMNS, LABELS = 8, 3
WEIGHTS = np.random.default_rng(0).standard_normal((COLUMNS, LABELS)).astype(np.float32)
HERE = ("openvino", "litert", "torch")


def save_onnx(path: Path, weights: NDArray[np.float32] = WEIGHTS) -> Path:
    columns, labels = weights.shape
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weights"], ["logits"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", columns])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", labels])],
        [numpy_helper.from_array(weights, "weights")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def save_for(runtime: str, folder: Path, weights: NDArray[np.float32] = WEIGHTS) -> Path:
    """The linear model as a file of that runtime."""
    source = save_onnx(folder / "model.onnx", weights)
    if runtime == "torch":
        write_program(source, folder / "model.pt2", {"x": np.ones((3, len(weights)), np.float32)}, 1)
        return folder / "model.pt2"
    if runtime == "litert":
        return save_tflite(folder / "model.tflite", np.ascontiguousarray(weights.T), (1, 4))
    return source


def inputs(rows: int) -> NDArray[np.float32]:
    return np.random.default_rng(rows).standard_normal((rows, COLUMNS)).astype(np.float32)


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


def test_cuda_is_refused_where_onnxruntime_has_none(tmp_path: Path) -> None:
    """The same file, another provider: without it, one line says what to install."""
    if not RUNTIMES["onnxruntime-cuda"].lack():
        pytest.skip("this onnxruntime has CUDA")
    with pytest.raises(ModelLoadError, match="cannot be used here: this onnxruntime has no CUDA: install"):
        open_session(save_onnx(tmp_path / "model.onnx"), runtime="onnxruntime-cuda")


def test_bfloat16_is_a_variant_of_its_own(tmp_path: Path) -> None:
    """Where the processor has it, answers differ from those of float32, and by no more than 8 bits of fraction do."""
    if lack := RUNTIMES["openvino-bf16"].lack():
        pytest.skip(lack)
    weights = np.random.default_rng(0).standard_normal((256, 64)).astype(np.float32)
    path, x = save_onnx(tmp_path / "model.onnx", weights), np.ones((16, 256), np.float32)
    exact, rounded = (
        open_session(path, runtime=name).run({"x": x})["logits"] for name in ("openvino", "openvino-bf16")
    )
    assert 0.0 < np.abs(exact - rounded).max() / np.abs(exact).max() < 2**-6


def test_importing_openvino_tells_nobody(tmp_path: Path) -> None:
    """Its package that sends usage data is not imported, and nothing is written in the home folder."""
    program = "import sys, variants.runtimes.openvino_cpu; print(sys.modules['openvino_telemetry'])"
    environment = {**os.environ, "HOME": str(tmp_path)}
    command = [sys.executable, "-c", program]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert ("None\n", []) == (ran.stdout, list(tmp_path.iterdir()))


@given(st.integers(1, 10_000), st.integers(2, 4))
def test_shapes_are_rounded_up_a_little(number: int, bits: int) -> None:
    """Never down, by less than a share that one bit more halves, and what is rounded stays."""
    rounded = round_up(number, bits)
    assert number <= rounded < number * (1 + 2.0 ** (1 - bits))
    assert rounded == round_up(rounded, bits)


def test_openvino_is_asked_for_few_shapes(tmp_path: Path) -> None:
    """Batches of many shapes of text run as few, no row with more tokens than it may have; answers are the same."""
    scores = np.random.default_rng(0).standard_normal((9, 2)).astype(np.float32)
    path = save_word_model(tmp_path / "words.onnx", scores)
    reference, asked = open_session(path), set()
    model = openvino_cpu.open_model(path, SessionOptions(longest=13), {})
    assert isinstance(model, openvino_cpu.OpenvinoModel)
    request = model._requests.get()

    def infer(inputs: list[NDArray[np.int64]], **options: bool) -> object:
        asked.add(inputs[0].shape)
        return request.infer(inputs, **options)

    model._requests.put(cast("Any", SimpleNamespace(infer=infer)))
    for rows in range(1, 10):
        for tokens in range(2, 14):
            ids = np.random.default_rng(tokens).integers(0, 9, (rows, tokens))
            feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
            np.testing.assert_allclose(reference.run(feeds)["logits"], model.run(feeds)["logits"], atol=1e-5)
    assert {(rows, tokens) for rows in (1, 2, 3, 4, 6, 8, 12) for tokens in (8, 10, 12, 13)} == asked


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


def test_torch_gets_its_threads_back(tmp_path: Path) -> None:
    """Models may want other threads than training; with the last model they are as before."""
    import torch

    path, before = save_for("torch", tmp_path), torch.get_num_threads()
    sessions = [open_session(path, SessionOptions(threads=before + 1), runtime="torch") for _ in range(2)]
    assert before + 1 == torch.get_num_threads()
    sessions.pop().close()
    assert before + 1 == torch.get_num_threads()
    sessions.clear()
    assert before == torch.get_num_threads()


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


def test_every_interpreter_is_ready_once_it_is_opened(tmp_path: Path) -> None:
    """What LiteRT packs of the weights in each slot is in the memory of opening."""
    weights = np.ones((4096, 4096), np.float32)
    path = save_for("litert", tmp_path, weights)
    taken = [open_session(path, SessionOptions(slots=slots), runtime="litert").memory_bytes for slots in (1, 3)]
    assert taken[1] - taken[0] > 64_000_000


@given(st.integers(1, 200), st.lists(st.integers(2, 64), max_size=4, unique=True))
def test_pieces_cover_the_rows(rows: int, more: list[int]) -> None:
    """Pieces end, and of each more than half is rows, unless there is no smaller one."""
    sizes = sorted([1, *more])
    left, pieces = rows, []
    while left > 0:
        size = piece(left, sizes)
        assert 2 * min(left, size) > size
        pieces.append(size)
        left -= size
    assert sum(pieces) >= rows


def test_sessions_are_told_apart_by_their_runtime(tmp_path: Path) -> None:
    """The same file under two runtimes is two sessions, each with its own seconds and memory."""
    path = save_onnx(tmp_path / "model.onnx")
    sessions: list[Session] = [open_session(path, runtime=name) for name in ("onnxruntime", "openvino")]
    assert all(session.load_s > 0.0 and session.memory_bytes >= 0 for session in sessions)
