"""Sessions run what is in the file, and a file that is no model is named."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, load, numpy_helper, save

from service.memory import resident_bytes
from variants.repository import RevisionFolder
from variants.resident import give_back
from variants.session import ModelLoadError, SessionClosedError, SessionOptions, open_session


def _save_two_outputs(path: Path) -> Path:
    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["minus"]), helper.make_node("Abs", ["x"], ["size"])],
        "two",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in ("minus", "size")],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize("options", [SessionOptions(), SessionOptions(threads=2, arena=True)])
def test_a_session_gives_every_output_by_name(tmp_path: Path, options: SessionOptions) -> None:
    """The outputs are what the graph computes, each under its own name, with any options."""
    session = open_session(_save_two_outputs(tmp_path / "two.onnx"), options)
    answers = session.run({"x": np.array([-1.0, 2.0], np.float32)})
    assert (("x",), ("minus", "size")) == (session.input_names, session.output_names)
    assert {"minus": [1.0, -2.0], "size": [1.0, 2.0]} == {name: values.tolist() for name, values in answers.items()}


def test_a_session_says_what_opening_took(tmp_path: Path) -> None:
    """Load time is positive and the memory note is not negative."""
    session = open_session(_save_two_outputs(tmp_path / "two.onnx"))
    assert session.load_s > 0.0
    assert session.memory_bytes >= 0


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
        lambda path: path.write_bytes(b"\xff" * 4096),
        lambda path: (path.unlink(), path.mkdir()),
    ],
    ids=["missing", "empty", "cut", "garbage", "folder"],
)
def test_a_file_that_is_no_model_is_named(
    tiny: RevisionFolder, damage: Callable[[Path], object], capfd: pytest.CaptureFixture[str]
) -> None:
    """Opening a damaged model raises one line with the file, and the runtime prints nothing of its own."""
    path = tiny.file("big/model.onnx")
    damage(path)
    with pytest.raises(ModelLoadError) as caught:
        open_session(path)
    assert str(caught.value).startswith(f"{path}: cannot be opened as a model: ")
    assert 1 == len(str(caught.value).splitlines())
    assert ("", "") == tuple(capfd.readouterr())


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
def test_onnxruntime_has_no_thread_that_sends_usage_data() -> None:
    """Whoever imports it through us has it without the thread of its telemetry, which is on by default."""
    program = "import os, variants.session; print(len(os.listdir('/proc/self/task')))"
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment["OPENBLAS_NUM_THREADS"] = "1"
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", program]
    counted = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=True)
    assert int(counted.stdout) == 1


def test_a_closed_session_is_not_run(tmp_path: Path) -> None:
    """Whoever still has it is told that it is closed, and by which name; closing it again changes nothing."""
    session = open_session(_save_two_outputs(tmp_path / "two.onnx"))
    session.close()
    session.close()
    with pytest.raises(SessionClosedError, match=re.escape(f"{tmp_path / 'two.onnx'}: is closed")):
        session.run({"x": np.array([1.0], np.float32)})


def _save_wide(path: Path, width: int) -> Path:
    """A model of `width` squared weights, 4 bytes each."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "wide",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", width])],
        [numpy_helper.from_array(np.ones((width, width), np.float32), "w")],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the C library decides what it gives back")
def test_a_model_takes_what_it_keeps(tmp_path: Path) -> None:
    """What reading its file took for a moment is neither counted as the model's nor kept by the process."""
    for name, width in (("small", 2000), ("large", 2500)):
        _save_wide(tmp_path / f"{name}.onnx", width)
    program = (
        "import sys; from pathlib import Path; from service.memory import resident_bytes; "
        "from variants.session import open_session; "
        "small, large = (Path(name) for name in sys.argv[1:]); "
        # The first ones bring what belongs to no model, and make the C library keep larger blocks.
        "kept = [open_session(path) for path in (small, large, small)]; before = resident_bytes(); "
        "kept.append(open_session(large)); print(kept[-1].memory_bytes, resident_bytes() - before)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "small.onnx"), str(tmp_path / "large.onnx")]
    root = Path(__file__).resolve().parents[2]
    said = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.split()
    assert all(0.9 * 25e6 < int(taken) < 1.2 * 25e6 for taken in said), said


def test_closing_gives_memory_back(tmp_path: Path) -> None:
    """Of 64 MB of weights, most leave the process with the session though a reference to it is left."""
    session = open_session(_save_wide(tmp_path / "wide.onnx", 4096))
    session.run({"x": np.ones((1, 4096), np.float32)})
    before_bytes = resident_bytes()
    session.close()
    give_back()
    assert before_bytes - resident_bytes() > 32_000_000


def test_sums_and_normalizations_are_kept_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sum and its normalization, a bias and its GELU, run as operators of their own: fused ones are slower."""
    width = 64
    parts = {
        "gain": np.ones(width),
        "shift": np.zeros(width),
        "bias": np.ones(width),
        "root": np.array(math.sqrt(2.0)),
        "one": np.array(1.0),
        "half": np.array(0.5),
    }
    nodes = [
        helper.make_node("Add", ["x", "y"], ["sum"]),
        helper.make_node("LayerNormalization", ["sum", "gain", "shift"], ["normal"], axis=-1),
        helper.make_node("Add", ["normal", "bias"], ["biased"]),
        helper.make_node("Div", ["biased", "root"], ["scaled"]),
        helper.make_node("Erf", ["scaled"], ["error"]),
        helper.make_node("Add", ["error", "one"], ["share"]),
        helper.make_node("Mul", ["biased", "share"], ["twice"]),
        helper.make_node("Mul", ["twice", "half"], ["z"]),
    ]
    graph = helper.make_graph(
        nodes,
        "block",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", "t", width]) for name in ("x", "y")],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", "t", width])],
        [numpy_helper.from_array(values.astype(np.float32), name) for name, values in parts.items()],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "block.onnx")
    real = onnxruntime.SessionOptions

    def writing_what_it_made() -> onnxruntime.SessionOptions:
        options = real()
        options.optimized_model_filepath = str(tmp_path / "made.onnx")
        return options

    monkeypatch.setattr(onnxruntime, "SessionOptions", writing_what_it_made)
    open_session(tmp_path / "block.onnx").close()
    made = [node.op_type for node in load(tmp_path / "made.onnx").graph.node]
    assert ["Add", "LayerNormalization", "Add", "Gelu"] == made
