"""What holds for one runtime alone: shapes, pieces, threads, precision, and what it tells."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.variants.conftest import save_word_model
from tests.variants.runtime_files import save_for, save_onnx
from variants.runtimes import openvino_cpu
from variants.runtimes.litert import piece
from variants.runtimes.padding import round_up
from variants.runtimes.table import RUNTIMES
from variants.session import ModelLoadError, SessionOptions, open_session

ROOT = Path(__file__).resolve().parents[2]


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
