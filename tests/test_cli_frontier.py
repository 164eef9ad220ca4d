"""What `pareto frontier` and `pareto profile` print, draw and keep."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from service import cli
from tests.console import failing, made
from variants.fingerprint import available_cores
from variants.repository import Repository, RepositoryError

pytestmark = pytest.mark.usefixtures("elsewhere")


def test_frontier_prints_and_draws(capsys: pytest.CaptureFixture[str], sound: Path, tmp_path: Path) -> None:
    """The table has every variant with its error; the pictures are a PNG and an SVG, the report one HTML file."""
    arguments = ["frontier", "sign", "--models", str(sound), "--out", str(tmp_path / "pictures")]
    assert 0 == cli.run([*arguments, "--watts-per-core", "7"])
    printed = capsys.readouterr()
    assert "measuring memory and processor seconds" in printed.err
    assert "measuring sign: memory and processor seconds, 100% done" in printed.err
    table = printed.out
    assert "80.0 ± 1.0" in table
    assert "90.0 ± 1.0" in table
    assert b"\x89PNG" == (tmp_path / "pictures" / "sign-frontier.png").read_bytes()[:4]
    assert "<svg" in (tmp_path / "pictures" / "sign-frontier.svg").read_text(encoding="utf-8")
    report = (tmp_path / "pictures" / "sign-frontier.html").read_text(encoding="utf-8")
    assert "accuracy over memory" in report
    assert "times 7 watts" in report
    assert 0 == cli.run(arguments)
    assert "measuring" not in capsys.readouterr().err


def test_frontier_looks_at_the_folder_before_it_measures(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, sound: Path, tmp_path: Path
) -> None:
    """One that cannot be made is one line and exit code 2, and one that can be is not made for nothing."""
    monkeypatch.setattr("variants.profiling.profile_family", None)
    (tmp_path / "file").touch()
    code, (line,) = failing(
        capsys, "frontier", "sign", "--models", str(sound), "--out", str(tmp_path / "file" / "deep")
    )
    assert (2, f"pareto: --out: {tmp_path / 'file'} is no folder") == (code, line)
    failing(capsys, "frontier", "nobody", "--models", str(sound), "--out", str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_frontier_of_a_repository_that_cannot_be_written(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What is measured and cannot be kept is said, and the report is written all the same; so is a profile's table."""
    models = made(tmp_path / "models")

    def refuses(*arguments: object) -> None:
        raise RepositoryError("profiles: cannot be written: Read-only file system")

    monkeypatch.setattr("variants.profiling.save_profile", refuses)
    assert 0 == cli.run(["frontier", "sign", "--models", str(models), "--out", str(tmp_path)])
    assert 2 == capsys.readouterr().err.count("what was measured is not kept: profiles: cannot be written")
    assert (tmp_path / "sign-frontier.html").is_file()
    assert 1 == cli.run(["profile", "sign", "--models", str(models)])
    printed = capsys.readouterr()
    assert "quick" in printed.out
    assert "pareto: profiles: cannot be written" in printed.err


def test_frontier_without_matplotlib(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, sound: Path, tmp_path: Path
) -> None:
    """Where nothing can be drawn, the report is written without pictures and says why."""
    monkeypatch.setitem(sys.modules, "variants.plots", None)
    assert 0 == cli.run(["frontier", "sign", "--models", str(sound), "--out", str(tmp_path / "out")])
    assert "no pictures: variants.plots is not installed" in capsys.readouterr().err
    assert ["sign-frontier.html"] == [path.name for path in (tmp_path / "out").iterdir()]
    assert "No pictures" in (tmp_path / "out" / "sign-frontier.html").read_text(encoding="utf-8")


def test_frontier_of_nothing_sound_is_one_line(capsys: pytest.CaptureFixture[str], corrupt: Path) -> None:
    """Where every variant is damaged, each is named, and the command ends with what to do."""
    assert 1 == cli.run(["frontier", "sign", "--models", str(corrupt)])
    *named, last = capsys.readouterr().err.splitlines()
    assert 2 == len(named)
    assert last.endswith("no variant is sound; `pareto build --force` builds the family anew")


def test_frontier_leaves_out_what_is_corrupt(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """One damaged variant is named; the others are profiled and shown."""
    model = Repository(made(tmp_path)).open("sign").file("better/model.onnx")
    model.write_bytes(b"")
    assert 0 == cli.run(["frontier", "--models", str(tmp_path), "--out", str(tmp_path)])
    printed = capsys.readouterr()
    assert "sign: better is left out: better/model.onnx: has 0 bytes" in printed.err
    assert "quick" in printed.out
    assert "better" not in printed.out


def test_profile_is_stored_and_printed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """`pareto profile` leaves one file for this machine, prints a row for each variant and recommends slots."""
    folder = Repository(made(tmp_path)).open("sign").path
    assert 0 == cli.run(["profile", "sign", "--models", str(tmp_path)])
    assert 1 == len(list((folder / "profiles").glob("*.json")))
    printed = capsys.readouterr().out
    assert "quick" in printed
    assert "better" in printed
    assert (available_cores() >= 2) == ("threads_per_slot = " in printed)
