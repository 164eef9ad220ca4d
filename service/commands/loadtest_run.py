"""`pareto loadtest` at work: generator processes, one profile or as many as the page asks for, and what is written."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from service.commands.failure import CommandError
from service.commands.loads import faults_of_the_load
from service.commands.loadtest_display import Progress, print_ended
from service.commands.loadtest_files import write_results

if TYPE_CHECKING:
    from loadtests.harness.conductor import Conductor, Ways
    from loadtests.harness.profiles import Profile
    from loadtests.harness.subject import Subject

INTERRUPTED = 130


def conduct(profile: Profile, subject: Subject, about: Mapping[str, Any], ways: Ways, out: Path) -> int:
    """Run a profile, or with locust's page as many as are started there; returns the exit code.

    Raises `CommandError` where the generator does not work or the load cannot be drawn.
    """
    from loadtests.harness.conductor import Conductor, ConductorError, InterruptedRunError

    for member in subject.members:
        typer.echo(f"{member.served.family}: {member.stock.source}; SLO {member.mix.said}", err=True)
    if ways.web:
        ways = dataclasses.replace(ways, form=_form(profile, subject))
    try:
        with Conductor(subject.cargo(), ways) as conductor, conductor.catching_interrupts():
            if ways.workers:
                _wait_for_workers(conductor, ways)
            if not ways.web:
                with faults_of_the_load():
                    return _once(conductor, profile, subject, about, ways, out)
            typer.echo(f"locust's page: http://{ways.web[0]}:{ways.web[1]}, Ctrl-C ends it", err=True)
            return _as_asked(conductor, profile, subject, about, ways, out)
    except ConductorError as error:
        raise CommandError(str(error)) from error
    except InterruptedRunError as error:
        raise CommandError("interrupted twice, nothing is written of what ran", INTERRUPTED) from error


def _once(
    conductor: Conductor, profile: Profile, subject: Subject, about: Mapping[str, Any], ways: Ways, out: Path
) -> int:
    from loadtests.harness.conductor import ConductorError
    from loadtests.harness.record import record
    from loadtests.harness.session import Ended, Session
    from loadtests.harness.verdict import verdict
    from loadtests.traces import TraceError

    session = Session(conductor, subject, Progress())

    def write(ended: Ended) -> None:
        if not session.runs:
            return
        values = record(
            profile=profile.name,
            subject=subject,
            about=about,
            options=profile.values(),
            runs=session.runs,
            ended=ended,
            workers=ways.workers,
            seed=profile.seed,
        )
        write_results(values, out)

    try:
        ended = profile.run(session)
    except (ConductorError, TraceError) as error:
        # What was measured until then is kept; the command ends with what went wrong.
        write(Ended(verdict([], [str(error)])))
        raise
    write(ended)
    print_ended(ended, session.runs, scored=profile.name in ("steady", "soak", "spike"))
    return ended.verdict.exit_code


def _as_asked(
    conductor: Conductor, profile: Profile, subject: Subject, about: Mapping[str, Any], ways: Ways, out: Path
) -> int:
    """Whatever is started on locust's page, until Ctrl-C; the exit code of the last."""
    code = INTERRUPTED
    while (form := conductor.wait_for_button()) is not None:
        try:
            chosen, of = _filled_in(profile, subject, form)
            with faults_of_the_load():
                code = _once(conductor, chosen, of, about, ways, out)
        except CommandError as error:
            typer.echo(f"pareto: {error}", err=True)
        conductor.over()
    return code


def _form(profile: Profile, subject: Subject) -> dict[str, Any]:
    """What the page's form shows at first."""
    mixes = {str(member.mix) for member in subject.members}
    load = profile.load
    return {
        "rate": load.rate if load is not None else None,
        "duration": load.duration_s if load is not None else None,
        "slo_mix": mixes.pop() if len(mixes) == 1 else None,
        "seed": profile.seed,
    }


def _filled_in(profile: Profile, subject: Subject, form: Mapping[str, Any]) -> tuple[Profile, Subject]:
    """Profile and subject as the form has them. Raises `CommandError`."""
    from loadtests.workload import SloMix

    with faults_of_the_load():
        if form.get("slo_mix"):
            mix = SloMix.parse(str(form["slo_mix"]))
            members = tuple(dataclasses.replace(member, mix=mix) for member in subject.members)
            subject = dataclasses.replace(subject, members=members)
    load = profile.load
    if load is not None:
        rate, duration_s = (_number(form, name) for name in ("rate", "duration"))
        load = dataclasses.replace(load, rate=rate or load.rate, duration_s=duration_s or load.duration_s)
    return dataclasses.replace(profile, load=load, seed=int(_number(form, "seed") or 0)), subject


def _number(form: Mapping[str, Any], name: str) -> float | None:
    try:
        value = float(form[name]) if form.get(name) not in (None, "") else None
    except (TypeError, ValueError):
        raise CommandError(f"{name}: expected a number, got {form[name]!r}") from None
    if value is not None and not (math.isfinite(value) and value >= 0.0):
        raise CommandError(f"{name}: expected a number of at least 0, got {value:g}")
    return value


def _wait_for_workers(conductor: Conductor, ways: Ways) -> None:
    """Say how to start them where that is not done here."""
    if ways.listen:
        host = "THIS-MACHINE" if ways.listen[0] in ("", "*", "0.0.0.0", "::") else ways.listen[0]  # noqa: S104 - compared
        at = f"--master-host {host} --master-port {conductor.port}"
        typer.echo(f"start {ways.workers} times: locust -f loadtests/locustfile.py --worker {at}", err=True)
    conductor.wait_for_workers(lambda count: typer.echo(f"workers: {count} of {ways.workers}", err=True))
