"""`pareto search` on images made here instead of those that would be downloaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from service import cli
from tests.quarters import LABELS, bright_quarters
from variants import families
from variants.architectures.perceptron import Perceptron
from variants.architectures.rung import Rung
from variants.families import fashion
from variants.families.fashion.ladder import plainly
from variants.families.fashion.recipe import LadderOfImages


@pytest.fixture(autouse=True)
def _quarters(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The family `fashion` is one rung on the images of the tests, which no trial can be, and the cache is empty."""
    images = LadderOfImages((Rung("odd", Perceptron(hidden=(30,)), plainly(2), 1),), bright_quarters)
    family = images.family(name="fashion", description="which quarter is bright?", labels=LABELS, default_slo_s=0.05)
    monkeypatch.setattr(fashion, "IMAGES", images)
    monkeypatch.setattr(families, "load_family", lambda name: family)
    monkeypatch.setenv("PARETO_CACHE", str(tmp_path))


def test_what_is_found_is_compared_with_the_ladder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A table of the ladder and of what was found, then their hypervolumes; the second time no trial is run."""
    pictures = tmp_path / "pictures"
    assert 0 == cli.run(["search", "fashion", "--trials", "2", "--epochs", "1", "--plain", "--out", str(pictures)])
    first = capsys.readouterr()
    *table, hypervolumes, spread = first.out.splitlines()
    assert any("odd" in line for line in table)
    assert any("found-" in line for line in table)
    assert hypervolumes.startswith("hypervolume, fraction x microseconds, test part: ladder ")
    assert spread.startswith("rows and latencies drawn anew: ladder ")
    assert "trial 1: " in first.err
    assert b"\x89PNG" == (pictures / "fashion-search.png").read_bytes()[:4]
    drawn = (pictures / "fashion-search.svg").read_text(encoding="utf-8")
    assert ">odd<" in drawn
    assert ">hand-made ladder<" in drawn
    assert (tmp_path / "search" / "fashion.journal").is_file()
    assert 0 == cli.run(["search", "fashion", "--trials", "2", "--epochs", "1", "--plain"])
    assert "trial" not in capsys.readouterr().err


def test_the_training_of_one_rung_is_searched(capsys: pytest.CaptureFixture[str]) -> None:
    """The best settings and the validation accuracy that they reached are printed."""
    assert 0 == cli.run(["search", "fashion", "--rung", "odd", "--trials", "2", "--plain"])
    printed = capsys.readouterr().out
    assert printed.startswith("odd: validation accuracy ")
    assert "rate=" in printed
