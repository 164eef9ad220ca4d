"""`pareto import` on the command line: what is wrong is one line and an exit code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from service import cli
from tests.variants.graphs import normal, save_mlp
from variants.repository import Repository


@pytest.fixture(autouse=True)
def _files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A working directory with a sound model and sound rows."""
    monkeypatch.chdir(tmp_path)
    save_mlp(tmp_path / "mlp.onnx")
    np.savez(tmp_path / "rows.npz", x=normal(80, 32))


def importing(model: str = "mlp.onnx", samples: str = "rows.npz", name: str = "mine", *more: str) -> list[str]:
    return ["import", model, "--samples", samples, "--name", name, "--plain", *more]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (importing("none.onnx"), 1, "pareto: none.onnx: cannot be read: No such file or directory"),
        (importing("rows.npz"), 1, "pareto: rows.npz: cannot be read as ONNX: "),
        (importing(samples="none.npz"), 1, "pareto: none.npz: cannot be read: No such file or directory"),
        (importing(samples="mlp.onnx"), 1, "pareto: mlp.onnx: is no .npz of plain arrays (numpy.savez)"),
        (importing(name="a b"), 2, "pareto: --name: 'a b' is no name"),
        ([*importing(), "--scale", "0"], 2, "pareto: --scale: expected a finite number over 0, got 0"),
        ([*importing(), "--slo-ms", "-1"], 2, "pareto: --slo-ms: expected a finite number over 0, got -1"),
        ([*importing(), "--scale", "inf"], 2, "pareto: --scale: expected a finite number over 0, got inf"),
        ([*importing(), "--mean", "nan"], 2, "pareto: --mean: expected a finite number, got nan"),
        ([*importing(), "--recipes", "int9"], 2, "pareto: --recipes: 'int9' is unknown, known are int8, "),
        ([*importing(), "--recipes", ""], 2, "pareto: --recipes: '' is unknown, known are int8, "),
        ([*importing(), "--output", "x"], 1, "pareto: mlp.onnx: has no output 'x' of numbers, but logits"),
        (["import", "mlp.onnx", "--name", "mine"], 2, "pareto: Missing option '--samples'"),
    ],
)
def test_what_is_wrong_is_one_line(
    arguments: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wrong files and flags are named, and the repository is as it was."""
    assert code == cli.run(arguments)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(said)
    assert () == Repository(Path("models")).families()


def test_an_imported_model_is_ported(capsys: pytest.CaptureFixture[str]) -> None:
    """With --runtimes, what is imported already gets its variants on another runtime, and nothing is made anew."""
    assert 0 == cli.run([*importing(), "--recipes", "int8"])
    before = Repository(Path("models")).open("mine").manifest
    assert 0 == cli.run([*importing(), "--recipes", "int8", "--runtimes", "openvino"]), capsys.readouterr().err
    after = Repository(Path("models")).open("mine").manifest
    names = [variant.name for variant in before.variants]
    assert [*names, *(f"{name}-openvino" for name in names)] == [variant.name for variant in after.variants]
    assert before.revision == after.build["extended"]


def test_an_imported_model_says_how_far_answers_may_move(capsys: pytest.CaptureFixture[str]) -> None:
    """With --batch-tolerance, at the import or afterwards, and then without importing it anew."""
    assert 0 == cli.run([*importing(), "--recipes", "int8", "--batch-tolerance", "0.005"]), capsys.readouterr().err
    before = Repository(Path("models")).open("mine").manifest
    assert 0 == cli.run([*importing(), "--batch-tolerance", "0.002"]), capsys.readouterr().err
    after = Repository(Path("models")).open("mine").manifest
    assert (0.005, 0.002) == (before.batch_tolerance, after.batch_tolerance)
    assert before.files == after.files


def test_a_model_is_not_imported_over_another(capsys: pytest.CaptureFixture[str]) -> None:
    """A family of that name stays unless `--force` says otherwise; then there are two revisions of it."""
    assert 0 == cli.run([*importing(), "--recipes", "fp16, int8"])
    capsys.readouterr()
    assert 1 == cli.run(importing())
    assert "pareto: mine: exists already in models; --force imports a new revision\n" == capsys.readouterr().err
    assert 0 == cli.run([*importing(), "--recipes", "fp16", "--force"])
    assert 2 == len(Repository(Path("models")).revisions("mine"))


def test_without_onnx_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the packages of the import are missing, the line names the first of them."""
    import sys

    for name in [name for name in sys.modules if name.startswith(("variants.importing", "variants.recipes.slim"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnxslim", None)
    assert 1 == cli.run(importing())
    (line,) = capsys.readouterr().err.splitlines()
    expected = (
        "building mine needs onnxslim, which is not installed: "
        "`make build` in a checkout, or there `pip install '.[import]'`, installs it"
    )
    assert f"pareto: {expected}" == line
