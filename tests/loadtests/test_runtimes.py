"""What `make bench-runtimes` prints comes of rounds in which port and original took turns."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from loadtests import runtimes
from loadtests.runtimes import Cell, cells_of, pairs_of
from variants.manifest import FamilyManifest
from variants.measurements import Parity
from variants.repository import Repository


@pytest.fixture
def ported(models: Path) -> FamilyManifest:
    """The family `tiny`, the larger variant of which has a port."""
    manifest = Repository(models).open("tiny").manifest
    parity = Parity(reference="large", max_relative_error=0.0, label_flips=0.0, compared_rows=1)
    port = manifest.variant("large").model_copy(
        update={"name": "large-openvino", "runtime": "openvino", "parity": parity}
    )
    return manifest.model_copy(update={"variants": (*manifest.variants, port)})


def test_ratios_are_of_the_same_round() -> None:
    """A machine that slows down for a whole round changes no ratio."""
    rounds = [{"a": 0.004, "a-openvino": 0.002}, {"a": 0.04, "a-openvino": 0.02}, {"a": 0.004, "a-openvino": 0.001}]
    assert [Cell("a-openvino", 4, 4.0, 2.0, (2.0, 2.0, 4.0))] == cells_of({"a-openvino": "a"}, 4, rounds)


def test_ports_are_compared_with_their_originals(ported: FamilyManifest) -> None:
    """Those of the wanted variants, or all; a variant without ports has nothing to be compared with."""
    assert {"large-openvino": "large"} == pairs_of(ported, []) == pairs_of(ported, ["large"])
    assert {} == pairs_of(ported, ["small"])


def test_all_can_be_compared_with_one(ported: FamilyManifest) -> None:
    """Originals, too, and ports of whatever is wanted; the one itself is not."""
    assert {"large": "small", "large-openvino": "small"} == pairs_of(ported, [], "small")
    assert {"large-openvino": "large"} == pairs_of(ported, ["large"], "large")


def test_variants_without_ports_are_compared_with_one(
    models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Asked for one size of batches, the table has a line for it and none for one beyond the family's largest."""
    monkeypatch.setattr(
        sys,
        "argv",
        f"runtimes --models {models} --family tiny --against large --batches 2,16 --rounds 1 --window 0.01".split(),
    )
    runtimes.main()
    assert 1 == capsys.readouterr().out.count("small")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--against medium", "tiny: --against medium: no such variant, known are small, large"),
        ("--batches 1,x", "argument --batches: '1,x' is no list of whole numbers from 1 on"),
        ("--batches 0", "argument --batches: '0' is no list of whole numbers from 1 on"),
        ("", "tiny: no ports of these: `pareto build tiny --runtimes all`"),
    ],
)
def test_what_cannot_be_compared_is_one_line(
    arguments: str, message: str, models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A variant that is not there, rows that are no numbers, and a family without ports."""
    monkeypatch.setattr(sys, "argv", f"runtimes --models {models} --family tiny {arguments}".split())
    with pytest.raises(SystemExit) as ended:
        runtimes.main()
    assert ended.value.code
    assert message in capsys.readouterr().err.splitlines()[-1]
