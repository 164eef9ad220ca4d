"""What `pareto loadtest` keeps and prints of what was sent, whatever goes wrong and whatever names are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from loadtests.harness.conductor import Conductor, ConductorError, Ran, Ways
from loadtests.harness.profiles import Profile
from loadtests.harness.search import SearchOptions
from loadtests.harness.subject import Names
from loadtests.harness.verdict import Wanted
from loadtests.traces import TraceError
from service.commands.loadtest_run import _once
from tests.loadtests.judged import answered, load, member, subject

pytestmark = pytest.mark.usefixtures("elsewhere")


class Made:
    """Stands for a conductor: hands in runs that nobody sent, and breaks after so many."""

    interrupted = False

    def __init__(self, of: Any, left: int = 100, error: Exception | None = None) -> None:
        self._of, self._left, self._error = of, left, error

    def run(self, plan: Any, watch: Any) -> Ran:
        if not self._left and self._error is not None:
            raise self._error
        self._left -= 1
        return answered(self._of, plan, refused=0.0).ran


@pytest.mark.parametrize("error", [ConductorError("a worker is gone"), TraceError("no arrivals")])
def test_what_was_measured_before_an_error_is_kept(error: Exception) -> None:
    """Trials of a search that ends in an error are written, as invalid; the error goes on."""
    of = subject()
    profile = Profile("search", load(40.0, 1.0), 0, Wanted(0.9), search=SearchOptions(0.5, 1))
    with pytest.raises(type(error)):
        _once(Made(of, 2, error), profile, of, {}, Ways(), Path("kept"))  # type: ignore[arg-type]  # all it needs
    values = json.loads(Path("kept.json").read_text())
    assert (2, "invalid", [str(error)]) == (
        len(values["runs"]),
        values["verdict"]["outcome"],
        values["verdict"]["faults"],
    )
    assert Path("kept.html").is_file()


def test_an_error_before_anything_was_sent_leaves_older_results_alone() -> None:
    """There is nothing to write."""
    of, error = subject(), ConductorError("no generator")
    with pytest.raises(ConductorError):
        _once(Made(of, 0, error), Profile("steady", load(), 0), of, {}, Ways(), Path("kept"))  # type: ignore[arg-type]  # all it needs
    assert not Path("kept.json").exists()


def test_names_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    """Of tenants and families; what they are called does not cost the results."""
    of = subject(member("f[/red]"), tenants=Names(("a[/b]", "[bold]c"), (0.5, 0.5)))
    code = _once(Made(of), Profile("steady", load(), 0, Wanted(0.5)), of, {}, Ways(), Path("kept"))  # type: ignore[arg-type]  # all it needs
    out, _ = capsys.readouterr()
    assert (0, True, True) == (code, "tenant a[/b]" in out, "tenant [bold]c" in out)
    assert Path("kept.json").is_file()
    assert "(95 %: " in out


def test_who_was_interrupted_before_a_plan_goes_out_sends_nothing() -> None:
    """Ctrl-C while it is drawn, or while workers are waited for: no message leaves."""
    one = Conductor(subject().cargo(), Ways())
    one._interrupts = 1
    assert None is one.run(subject().draw(load(), 0))
    one._processes.close()
