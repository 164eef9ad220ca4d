"""`pareto loadtest`: how a running gateway answers a load, sent open loop and held against thresholds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from service.commands import loadtest_options as options
from service.commands.failure import CommandError, faults_of_the_repository
from service.commands.loads import (
    DEFAULT_PROCESS,
    USAGE,
    Attainment,
    Cv2,
    Mix,
    PeakRatio,
    Period,
    Process,
    Rate,
    Trace,
    TraceRate,
    check_attainment,
    faults_of_the_load,
    load_of,
    shape_of,
)
from service.commands.loadtest_files import check_out, write_comparison
from service.commands.loadtest_subject import faults_of_the_gateway, members_of, target_of
from service.commands.options import Config, Models, settings_from

if TYPE_CHECKING:
    from loadtests.harness.conductor import Ways
    from loadtests.harness.subject import Subject

MOST_WORKERS = 256
_GIVEN = ("COMMANDLINE", "ENVIRONMENT")


def loadtest(
    context: typer.Context,
    url: options.Url = None,
    profile: options.Profile = "steady",
    rate: Rate = None,
    process: Process = DEFAULT_PROCESS,
    cv2: Cv2 = None,
    peak_ratio: PeakRatio = None,
    period: Period = None,
    duration: options.Duration = None,
    trace: Trace = None,
    trace_rate: TraceRate = None,
    slo_mix: Mix = None,
    tenant: options.Tenants = None,
    seed: options.Seed = 0,
    family: options.Families = None,
    variant: options.Variant = None,
    rows: options.RowFiles = None,
    models: Models = None,
    config: Config = None,
    header: options.Headers = None,
    insecure: options.Insecure = False,
    attainment: Attainment = 0.99,
    effective_accuracy: options.EffectiveAccuracy = None,
    p99_ms: options.P99 = None,
    failed: options.Failed = 0.0,
    precision: options.Precision = 0.05,
    repeats: options.Repeats = 3,
    enough: options.Enough = None,
    drift: options.Drift = 0.2,
    growth: options.Growth = 0.1,
    burst: options.Burst = 4.0,
    burst_duration: options.BurstDuration = 5.0,
    recovery: options.Recovery = 5.0,
    workers: options.Workers = 0,
    listen: options.Listen = None,
    web: options.Web = None,
    out: options.Out = Path("loadtest"),
    compare: options.Compare = None,
) -> None:
    """Send a load to a running gateway and judge what comes back: a report, JSON, and an exit code.

    Arrivals never wait for answers, and latency counts from when a request should have left. A run in which the
    generator was late is INVALID. Exit codes: 0 passed, 4 thresholds missed, 3 invalid, 2 wrong flags, 1 not tested.
    """
    if compare is not None:
        check_out(out)
        write_comparison(compare, out)
        return
    check_attainment(attainment)
    _check_numbers(
        {"failed": failed, "drift": drift, "growth": growth, "recovery": recovery, "seed": float(seed)}, least=0.0
    )
    _check_numbers({"precision": precision, "repeats": float(repeats), "burst-duration": burst_duration}, above=0.0)
    _check_numbers({"effective-accuracy": effective_accuracy, "p99-ms": p99_ms, "enough": enough}, above=0.0)
    _check_numbers({"burst": burst}, above=1.0)
    if profile not in options.PROFILES:
        raise CommandError(f"--profile: expected one of {', '.join(options.PROFILES)}, got {profile!r}", USAGE)
    told = _told(context, profile)
    check_out(out)
    with _loadtest_installed():
        import loadtests.harness.conductor  # noqa: F401 - before anything is asked
        from loadtests.harness.profiles import DURATIONS_S, Profile
        from loadtests.harness.search import FIRST_PER_S, SearchOptions
        from loadtests.harness.soak import SoakOptions
        from loadtests.harness.spike import SpikeOptions
        from loadtests.harness.subject import Names, Subject
        from loadtests.harness.verdict import Wanted
        from loadtests.workload import SloMix
    settings = settings_from(config, models=models)
    target = target_of(url or f"http://127.0.0.1:{settings.port}", header or (), insecure=insecure)
    with faults_of_the_load(), faults_of_the_gateway(), faults_of_the_repository():
        mix = SloMix.parse(slo_mix) if slo_mix else None
        tenants = Names.parse(tenant, "--tenant") if tenant else None
        shape = shape_of(process, cv2, peak_ratio, period)
        ways = _ways(workers, listen, web)
        about = target.about()
        if not target.ready():
            raise CommandError(f"{target.url} is not ready: GET /v2/health/ready does not answer 200")
        members = members_of(target, family, mix, variant, rows or (), settings.models, chosen=models is not None)
        subject = Subject(target, members, tenants)
        _check_judged(told, subject)
        load = None
        if profile != "smoke":
            if profile == "search" and (trace is not None or trace_rate is not None):
                raise CommandError("--profile search looks for a rate: it takes no --trace", USAGE)
            begin = FIRST_PER_S if profile == "search" and rate is None else rate
            span_s = DURATIONS_S[profile] if duration is None else duration
            load = load_of(members[0].mix, span_s, begin, process, shape, trace, trace_rate)
    chosen = Profile(
        profile,
        load,
        seed,
        Wanted(attainment, effective_accuracy, p99_ms / 1e3 if p99_ms else None, failed),
        SearchOptions(precision, repeats, enough),
        SoakOptions(drift, growth, tuple(name for name in ("drift", "growth") if name in told)),
        SpikeOptions(burst, burst_duration, recovery),
    )
    with faults_of_the_load():
        chosen.rehearse(subject)
    from service.commands.loadtest_run import conduct

    raise typer.Exit(conduct(chosen, subject, about, ways, out))


def _told(context: typer.Context, profile: str) -> frozenset[str]:
    """The parameters that somebody has given, by name. Raises `CommandError` for one that the profile ignores."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    told = frozenset(name for name, source in sources.items() if source and source.name in _GIVEN)
    for name in sorted(told & options.USED_BY.keys()):
        users = options.USED_BY[name]
        if profile not in users:
            flag = name.replace("_", "-")
            raise CommandError(f"--{flag}: --profile {profile} does not look at it, but {', '.join(users)}", USAGE)
    return told


def _check_judged(told: frozenset[str], subject: Subject) -> None:
    """What somebody wants judged can be. Raises `CommandError` before anything is sent."""
    if "effective_accuracy" in told and not subject.labelled:
        unknown = ", ".join(member.served.family for member in subject.members if not member.stock.labelled)
        raise CommandError(f"--effective-accuracy cannot be judged: the rows of {unknown} have no labels", USAGE)
    if "growth" in told and subject.target.resident_bytes() is None:
        raise CommandError(
            f"--growth cannot be judged: {subject.target.url}/metrics does not tell memory (it takes the role `read`)",
            USAGE,
        )


@contextmanager
def _loadtest_installed() -> Iterator[None]:
    """Locust and what goes with it are no part of serving."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise CommandError(
            f"{error.name} is not installed: in a checkout `make loadtest` installs what load tests take, and so does "
            "pip install -e '.[loadtest]'"
        ) from error


def _check_numbers(
    numbers: Mapping[str, float | None], *, least: float | None = None, above: float | None = None
) -> None:
    """Numbers of flags that must be finite, and at least or above a bound. Raises `CommandError` naming the flag."""
    for flag, value in numbers.items():
        if value is None:
            continue
        fits = math.isfinite(value) and (least is None or value >= least) and (above is None or value > above)
        if not fits:
            bound = f"of at least {least:g}" if least is not None else f"over {above:g}"
            raise CommandError(f"--{flag}: expected a number {bound}, got {value:g}", USAGE)


def _ways(workers: int, listen: str | None, web: str | None) -> Ways:
    """How the load is sent. Raises `CommandError` for what is no address, for ports in use, and for a crowd."""
    from loadtests.harness.conductor import Ways
    from service.ports import occupant

    if not 0 <= workers <= MOST_WORKERS:
        raise CommandError(f"--workers: expected 0 to {MOST_WORKERS}, got {workers}", USAGE)
    if listen is not None and not workers:
        raise CommandError("--listen waits for workers: say how many with --workers", USAGE)
    addresses = {"--listen": listen, "--web": web}
    found = {flag: _address(flag, text) for flag, text in addresses.items() if text is not None}
    for flag, (host, port) in found.items():
        if taken := occupant(host, port, (flag, flag)):
            raise CommandError(taken)
    return Ways(workers, found.get("--listen"), found.get("--web"))


def _address(flag: str, text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise CommandError(f"{flag}: expected HOST:PORT, got {text[:60]!r}", USAGE)
    return host.strip("[]") or "127.0.0.1", int(port)
