"""What cannot be ported, or not faithfully, is left out or refused with its reason; converters are tools apart."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.ported import POINTS, built, extended, load
from variants.assessment import assess
from variants.porting import extend, ports
from variants.porting.extend import all_runtimes, usable_runtimes
from variants.porting.ports import decided_flips
from variants.porting.tools import PYTHON, ToolError, run_tool
from variants.preparation import LOGITS
from variants.runtimes import openvino_cpu, table
from variants.runtimes.contract import Tensors
from variants.spec import BuildContext, BuildError, Dataset


def test_a_port_that_answers_otherwise_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With none left, nothing is published, and the reason is said."""
    repository, said = built(tmp_path), io.StringIO()
    monkeypatch.setattr(ports, "MOST_FLIPS", -1.0)
    before = repository.active("points")
    with pytest.raises(BuildError, match=r"no variant could be ported: BuildError: 0.0 % of its labels are not those"):
        extended(repository, ["openvino"], said=said)
    assert "float-openvino is left out" in said.getvalue()
    assert (before, 1) == (repository.active("points"), len(repository.revisions("points")))


def doubtful(context: BuildContext) -> Dataset:
    """The same points, whose labels are less certain the nearer they lie to the border."""
    data, random = load(context), np.random.default_rng(1)
    parts = (data.train, data.validation, data.test)
    noise = [random.standard_normal(len(part.labels)) / 2 for part in parts]
    labels = [(part.inputs["x"][:, 0] + moved > 0).astype(np.int64) for part, moved in zip(parts, noise, strict=True)]
    return Dataset(*(replace(part, labels=given) for part, given in zip(parts, labels, strict=True)))


def test_a_port_may_decide_otherwise_what_was_undecided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than 5 % of the labels differ, but of rows whose two labels were nearly as likely: it is made."""
    compute, spec = openvino_cpu.OpenvinoModel.run, replace(POINTS, load=doubtful)

    def undecided_are_swapped(model: openvino_cpu.OpenvinoModel, feeds: Tensors) -> dict[str, Any]:
        logits = compute(model, feeds)[LOGITS]
        close = np.abs(logits[:, :1] - logits[:, 1:]) < 0.9
        return {LOGITS: np.where(close, logits[:, ::-1], logits)}

    repository = built(tmp_path, spec)
    monkeypatch.setattr(openvino_cpu.OpenvinoModel, "run", undecided_are_swapped)
    parity = extended(repository, ["openvino"], ["float"], spec=spec).manifest.variant("float-openvino").parity
    assert parity is not None
    assert parity.label_flips > 0.05


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ([[3.0, 0.0, 1.0], [0.0, 2.0, 0.5], [1.0, 0.2, 0.9]], 0.5),
        ([[0.0, 3.0, 1.0], [0.0, 2.0, 0.5], [1.0, 0.2, 0.9]], 0.0),
        ([[1.0, 0.0, 0.9], [0.0, 1.0, 0.5], [1.0, 0.2, 0.9]], 2 / 3),
        ([[1.0], [2.0], [3.0]], 0.0),
    ],
)
def test_labels_count_where_the_original_was_decided(wanted: list[list[float]], expected: float) -> None:
    """A label three times as likely as any other, or any label where there is none."""
    given = np.array([[0.0, 1.0, 0.5]] * 3, np.float32)[:, : len(wanted[0])]
    assert expected == pytest.approx(decided_flips(given, np.array(wanted, np.float32)))


def test_a_port_without_finite_logits_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said, leaves no file, and is forgotten once it is ported; with none left nothing is published."""
    repository, said = built(tmp_path), io.StringIO()
    measured = assess
    lost = ["float-torch", "float-openvino"]

    def without(*arguments: Any, **more: Any) -> Any:
        return {name: one for name, one in measured(*arguments, **more).items() if name not in lost}

    monkeypatch.setattr(extend, "assess", without)
    with pytest.raises(BuildError, match="no variant could be ported: it gives logits that are not finite"):
        extended(repository, ["openvino"], ["float"])
    assert 1 == len(repository.revisions("points"))
    folder = extended(repository, ["openvino", "torch"], said=said)
    assert ["float", "other", "other-openvino"] == [variant.name for variant in folder.manifest.variants]
    assert "float-torch is left out: it gives logits that are not finite" in said.getvalue()
    assert not (folder.path / "float-torch").exists()
    assert {"left_out.float-torch", "left_out.float-openvino"} <= folder.manifest.build.keys()
    lost.clear()
    again = extended(repository, ["openvino"])
    assert "left_out.float-torch" in again.manifest.build
    assert "left_out.float-openvino" not in again.manifest.build


def test_other_rows_are_refused(tmp_path: Path) -> None:
    """A family whose data has changed is built anew: figures of other rows cannot stand beside each other."""
    repository = built(tmp_path)
    changed = replace(POINTS, load=partial(load, seed=1))
    with pytest.raises(BuildError, match="its rows are not those that the revision was measured on; build it anew"):
        extended(repository, ["openvino"], spec=changed)


def test_runtimes_are_named_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line for one that nobody knows, one for each that is not here; `all` leaves those out."""
    with pytest.raises(BuildError, match="no runtime 'abacus', known are onnxruntime, onnxruntime-cuda, openvino,"):
        usable_runtimes(["abacus"])
    monkeypatch.setattr(table, "find_spec", lambda name: None if name == "openvino" else name)
    with pytest.raises(BuildError, match="the runtime openvino is not installed: pip install"):
        usable_runtimes(["openvino"])
    said: list[str] = []
    assert "torch" in all_runtimes(said.append)
    assert any(line.startswith("the runtime openvino-bf16 is not installed") for line in said)


def test_missing_converters_are_said(tmp_path: Path) -> None:
    """One line names the command that installs them."""
    with pytest.raises(ToolError, match="the converters are not installed: `make export-tools`"):
        run_tool("variants.porting.litert_tool", {}, tmp_path / "python")


def test_a_converter_that_fails_is_quoted(tmp_path: Path) -> None:
    """The last line of what it says is the reason."""
    with pytest.raises(ToolError, match=r"No module named variants.porting.nothing"):
        run_tool("variants.porting.nothing", {}, Path(sys.executable))


@pytest.mark.skipif(not PYTHON.exists(), reason="the converters are not installed: run `make export-tools`")
def test_a_variant_is_ported_to_litert(tmp_path: Path) -> None:
    """Converted by LiteRT's own tools, it answers as the original: any number of rows, no label other."""
    folder = extended(built(tmp_path), ["litert"])
    port = folder.manifest.variant("float-litert")
    assert port.parity is not None
    assert ("float-litert/model.tflite", 0.0) == (port.model_file, port.parity.label_flips)
    assert port.parity.max_relative_error < 1e-5
