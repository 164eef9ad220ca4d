"""What the routing benchmark runs on: the family, the simulated machine, the policies, the traces."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from loadtests.calibration import TYPICAL, profiled_noise
from loadtests.compare import profiled_family
from loadtests.machine import Machine
from loadtests.report import write_json
from loadtests.revision import commit_of
from loadtests.routing_runs import BookError
from loadtests.routing_simulated import Bench
from loadtests.samples import Samples, read_samples
from loadtests.suite import Trace, measure, recorded_trace, traces_named
from loadtests.synthetic import NAME as SYNTHETIC
from loadtests.synthetic import synthetic
from router.family import Family
from router.policies import POLICIES, policy_named
from variants.fingerprint import machine_fingerprint
from variants.repository import Repository, RepositoryError, RevisionFolder

PREFERRED = ("sentiment-deep", "sentiment")
SUBJECT = "casc"
MACHINE_FILE = "routing_machine.json"
_CHEAPEST = "fastest"
_DECISIONS = "poisson middle 0.7"
"""The trace on which decisions are timed, and for how long."""
_DECISIONS_S = 3.0


@dataclass(frozen=True, slots=True)
class Stage:
    """The family under load; `folder` is None for the synthetic one. `context` says what runs of it compare with.

    `commit` is what was checked out when it was opened.
    """

    family: Family
    samples: Samples
    folder: RevisionFolder | None
    context: dict[str, Any]
    commit: str = field(default_factory=commit_of)


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A simulated machine, and by policy what its decisions add to a batch beyond those of the calibration, seconds."""

    machine: Machine
    decision_s: dict[str, float] = field(default_factory=dict)


def open_stage(options: argparse.Namespace) -> Stage:
    """Open the family that is asked for, else the first of `PREFERRED`. Raises `RepositoryError`."""
    if options.family == SYNTHETIC:
        family, samples = synthetic()
        return Stage(family, samples, None, _context(options, family, "1"))
    repository = Repository(options.models)
    folder = _first(repository) if options.family is None else repository.open(options.family)
    names = options.variants or [variant.name for variant in folder.manifest.variants if variant.load_by_default]
    if unknown := set(names) - {variant.name for variant in folder.manifest.variants}:
        raise ValueError(f"variants: {folder.manifest.name} has no {min(unknown)}")
    family = profiled_family(folder, names, options.server_cores, staged=options.stages == "on")
    return Stage(family, read_samples(folder), folder, _context(options, family, folder.manifest.revision))


def all_policies() -> tuple[str, ...]:
    """The names of all the router's policies that need no further word."""
    return tuple(name for name in POLICIES if "<" not in name)


def policies_asked_for(names: Sequence[str], family: Family) -> tuple[str, ...]:
    """The policies to run, in order: those named; `all` for every one of the router's, `lazy` for their lazy forms.

    Raises `ValueError` for a name that the router or the family does not know.
    """
    chosen: list[str] = []
    for name in names or ("all",):
        if name == "all":
            chosen += all_policies()
        elif name == "lazy":
            chosen += [lazy for known in all_policies() if _exists(lazy := f"{known}:lazy")]
        else:
            chosen.append(name)
    for name in dict.fromkeys(chosen):
        policy_named(name)
        kind, _, variant = name.partition(":")
        if kind == "fixed" and family.index(variant.removesuffix(":lazy")) is None:
            known = ", ".join(variant.name for variant in family.variants)
            raise ValueError(f"policies: {name}: {family.name} has no such variant, expected one of {known}")
    return tuple(dict.fromkeys(chosen))


def statics_of(family: Family) -> tuple[str, ...]:
    """The policies that always answer with one variant, for every variant worth choosing."""
    return tuple(f"fixed:{family.variants[rung].name}" for rung in family.ladder)


def traces_asked_for(options: argparse.Namespace, default: str) -> tuple[Trace, ...]:
    """The traces to run: those named, and a recording. Raises `TraceError`."""
    named = traces_named(options.traces or ((default,) if options.trace is None else ()))
    recordings = tuple(recorded_trace(path, options.trace_load) for path in options.trace or ())
    return (*named, *recordings)


def machine_for(stage: Stage, options: argparse.Namespace) -> tuple[Calibrated, str]:
    """The simulated machine and where it comes from: a file that is named, the last calibration here, or the profile.

    Raises `BookError` for a file that cannot be used.
    """
    if options.machine is not None:
        return read_machine(options.machine, None), f"calibrated: {options.machine}"
    path = options.out / MACHINE_FILE
    if path.exists() and stage.folder is not None:
        try:
            return read_machine(path, stage.context), f"calibrated: {path}"
        except BookError:
            pass  # of another family or machine, which is no fault of the user's
    noise = profiled_noise(stage.family)
    if stage.folder is None:
        return Calibrated(Machine(slots=options.slots)), "of its own"
    return Calibrated(replace(TYPICAL, slots=options.slots, noise=noise)), "profile and typical HTTP, not calibrated"


def read_machine(path: Path, context: Mapping[str, Any] | None) -> Calibrated:
    """Read what `write_machine` wrote; with a context, only one of the same. Raises `BookError`."""
    try:
        values = orjson.loads(path.read_bytes())
        if context is not None and values["context"] != orjson.loads(orjson.dumps(dict(context))):
            raise BookError(f"{path}: is of another family or machine")
        return Calibrated(Machine(**values["machine"]), values["decision_s"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BookError(f"{path}: cannot be read as a machine: {' '.join(str(error).split())[:200]}") from None


def write_machine(path: Path, calibrated: Calibrated, context: Mapping[str, Any]) -> None:
    """Store a calibration, so that simulation alone can use it."""
    values = {"machine": asdict(calibrated.machine), "decision_s": calibrated.decision_s}
    write_json(path, {"context": dict(context), **values})


def bench_for(stage: Stage, options: argparse.Namespace, calibrated: Calibrated, duration_s: float) -> Bench:
    """Simulations of the stage's family on that machine; rates and SLOs are relative to it."""
    yardsticks = measure(stage.family, stage.samples, calibrated.machine)
    return Bench(
        stage.family,
        stage.samples,
        calibrated.machine,
        yardsticks,
        duration_s,
        options.margin,
        decision_s=calibrated.decision_s,
    )


def decision_costs(stage: Stage, options: argparse.Namespace, machine: Machine) -> dict[str, float]:
    """Seconds by which a decision of each policy takes longer than one of the calibration's, in whole microseconds."""
    bench = bench_for(stage, options, Calibrated(machine), _DECISIONS_S)
    (trace,) = traces_named([_DECISIONS])
    names = dict.fromkeys((*all_policies(), *policies_asked_for(options.policies, stage.family)))
    workload = bench.workload(trace, 0)
    median_us = {name: bench.results(name, workload, 0)[1].median_us for name in (_CHEAPEST, *names)}
    return {name: max(0, round(median_us[name] - median_us[_CHEAPEST])) / 1e6 for name in names}


def _exists(policy: str) -> bool:
    try:
        policy_named(policy)
    except ValueError:
        return False
    return True


def _first(repository: Repository) -> RevisionFolder:
    for name in PREFERRED:
        try:
            return repository.open(name)
        except RepositoryError:
            continue
    raise RepositoryError(
        f"{repository.root}: has neither of {', '.join(PREFERRED)}: build one with `pareto build {PREFERRED[-1]}`, "
        f"or give --family {SYNTHETIC}"
    )


def _context(options: argparse.Namespace, family: Family, revision: str) -> dict[str, Any]:
    return {
        "machine": machine_fingerprint().description,
        "family": family.name,
        "revision": revision,
        "variants": [variant.name for variant in family.variants],
        "stages": options.stages,
        "slots": options.slots,
        "slot_cores": options.slot_cores,
        "margin": options.margin,
    }
