"""The console script: what is printed of wrong usage, of what is missing and of the unforeseen, and how it ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtests.servers import free_port
from service import __version__, cli
from tests.console import failing
from tests.service.families import sign_model, write_family
from variants.repository import Repository

pytestmark = pytest.mark.usefixtures("elsewhere")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """`pareto --version` prints one line."""
    assert 0 == cli.run(["--version"])
    assert f"pareto {__version__}\n" == capsys.readouterr().out


def test_the_command_alone_prints_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    """`pareto` without a command lists the commands, and names no fault."""
    assert 2 == cli.run([])
    captured = capsys.readouterr()
    assert "doctor" in captured.out + captured.err
    assert "pareto:" not in captured.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["srve"], "pareto: No such command 'srve'. Did you mean 'serve'? (see pareto --help)"),
        (["serve", "--prot", "1"], "pareto: No such option: --prot"),
        (
            ["serve", "--port", "x"],
            "pareto: Invalid value for '--port' / '-p': expected a whole number (see pareto --help)",
        ),
        (
            ["search", "fashion", "--trials", "0"],
            "pareto: Invalid value for '--trials': expected at least 1 (see pareto --help)",
        ),
        (["serve", "--port", "70000"], "pareto: port (--port): expected at most 65535, got 70000"),
        (["serve", "--config", "none.toml"], "pareto: none.toml: cannot read the settings file"),
        (["profile"], "pareto: Missing argument 'FAMILY'"),
        (["build", "digits", "--recipes", "int8"], "pareto: No such option: --recipes"),
        (["search", "fashion", "--trials", "0"], "pareto: Invalid value for '--trials'"),
        (["search", "fashion", "--rung", "ladder"], "pareto: --rung ladder: there is none; rungs: linear, mlp, "),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    """Unknown commands, options and values are named on the error output."""
    code, (line,) = failing(capsys, *arguments)
    assert 2 == code
    assert line.startswith(said)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["build", "cats"], "pareto: 'cats' is not a family"),
        (["build", "cats.py"], "no such file"),
        (["search", "sentiment"], "pareto: 'sentiment' has no architectures to search; families with some: fashion"),
        (["profile", "cats"], "pareto: models: no family 'cats' here (families: none); `pareto build` or "),
        (["frontier"], "pareto: models: holds no family; `pareto build` builds one"),
        (["serve"], "pareto: models: there is no such folder; build a family with `pareto build`"),
        (["serve", "--models", "."], "pareto: .: holds no family to serve; build a family with `pareto build`"),
    ],
)
def test_what_is_missing_is_one_line_and_exit_code_1(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    """Unknown families and empty repositories are named, with what to do."""
    port = ["--port", str(free_port())] if arguments[0] == "serve" else []
    code, (line,) = failing(capsys, *arguments, *port)
    assert 1 == code
    assert said in line


def test_the_unforeseen_has_no_traceback_unless_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, sound: Path
) -> None:
    """A fault of the gateway itself is one line, too; `PARETO_DEBUG=1` shows where it happened."""

    def breaks(*arguments: object) -> None:
        raise ZeroDivisionError("no such\nluck")

    monkeypatch.setattr(Repository, "open", breaks)
    code, (line,) = failing(capsys, "profile", "sign", "--models", str(sound))
    expected = "pareto: internal error: ZeroDivisionError: no such luck (PARETO_DEBUG=1 shows where)"
    assert (1, expected) == (code, line)
    monkeypatch.setenv("PARETO_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        cli.run(["profile", "sign", "--models", str(sound)])


def test_an_interrupt_is_said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, sound: Path) -> None:
    """Ctrl-C ends a command with one line and the exit code that shells expect."""

    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Repository, "open", interrupted)
    assert (130, ["pareto: interrupted"]) == failing(capsys, "profile", "sign", "--models", str(sound))


def test_another_family_of_the_same_name_is_not_taken_for_the_one_that_is_built(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A file with other inputs or labels is refused with both families named; the one that was built is built."""
    write_family(Repository(tmp_path), "sign", {"only": (sign_model(), 0.8)})
    built = Repository(tmp_path).open("sign").manifest
    same, other = tmp_path / "same.py", tmp_path / "other.py"
    for file, labels in ((same, built.labels), (other, ("cat", "dog", "bird"))):
        file.write_text(
            "from variants.manifest import TensorPreparation, TensorSpec\n"
            "from variants.spec import FamilySpec\n"
            f"FAMILY = FamilySpec('sign', 'Which animal?', {labels!r}, (TensorSpec(name='x', datatype='FP32',"
            " shape=(-1, 4)),), TensorPreparation(), None, None, 0.1)\n"
        )
    code, (line,) = failing(capsys, "build", str(same), "--models", str(tmp_path))
    assert (0, True) == (code, line.startswith("sign: is built already"))
    code, (line,) = failing(capsys, "build", str(other), "--models", str(tmp_path))
    whose = f"another family of other labels ({built.description!r})"
    assert (1, True) == (code, line.startswith(f"pareto: {other}: sign is built already in {tmp_path}, as {whose}: "))


def test_what_is_built_is_not_built_again(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """`pareto build` leaves a family alone that the repository has, unless forced."""
    write_family(Repository(tmp_path), "digits", {"only": (sign_model(), 0.8)})
    before = Repository(tmp_path).revisions("digits")
    code, (line,) = failing(capsys, "build", "digits", "--models", str(tmp_path))
    assert (0, before) == (code, Repository(tmp_path).revisions("digits"))
    assert line.startswith("digits: is built already")
