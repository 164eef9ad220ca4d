"""A family as it would be served with the settings, for `pareto simulate`: nothing is opened but what is measured."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from service.commands.failure import CommandError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtests.whatif import Setup
    from service.settings import Settings
    from variants.manifest import VariantManifest
    from variants.profiles import FamilyProfile
    from variants.repository import RevisionFolder

_USAGE = 2


def setup_of(settings: Settings, name: str, variants: Sequence[str] | None, machine: Path | None) -> tuple[Setup, str]:
    """What serves the family with these settings, and what it was profiled on.

    `variants` replaces those that would be loaded, `machine` is a file with a calibrated machine. Raises
    `CommandError`, `RepositoryError`, `ModelLoadError` and, for `machine`, `TraceError`.
    """
    from loadtests.samples import read_samples
    from loadtests.whatif import Setup, read_machine, usual_machine
    from router.policies import policy_named
    from router.view import CascadePolicy
    from service.paths import serves_stages
    from variants.evidence import read_evidence
    from variants.profiles import to_router_family
    from variants.repository import Repository

    folder = Repository(settings.models).open(name)
    chosen = _chosen(folder, variants or settings.load_of(name))
    names = [variant.name for variant in chosen]
    kind, _, fixed = settings.policy.removesuffix(":lazy").partition(":")
    if kind == "fixed" and fixed not in names:
        raise CommandError(f"--policy: {fixed!r} is not loaded; loaded are {', '.join(names)}", _USAGE)
    cascades = isinstance(policy_named(settings.policy), CascadePolicy)
    staged = serves_stages(settings.stages_of(name), chosen, cascades=cascades)
    first, *others = [
        (device, _profile(folder, chosen, threads, staged=staged)) for device, threads in settings.widths.items()
    ]
    profile, evidence = first[1], partial(read_evidence, folder)
    family = to_router_family(folder.manifest, profile, names, staged=staged, evidence=evidence, elsewhere=dict(others))
    slots, slo_ms = settings.slot_count, settings.family(name).slo_ms
    simulated = read_machine(machine, slots) if machine else usual_machine(family, slots)
    if settings.devices:
        simulated = replace(simulated, devices=tuple((slot.device, slot.width) for slot in settings.places))
    setup = Setup(
        family=family,
        samples=read_samples(folder),
        policy=settings.policy,
        machine=simulated,
        margin=settings.margin_of(name),
        limits=settings.limits,
        default_slo_s=slo_ms / 1e3 if slo_ms else folder.manifest.default_slo_s,
    )
    return setup, profile.machine


def _chosen(folder: RevisionFolder, wanted: Sequence[str] | None) -> list[VariantManifest]:
    from variants.runtimes.defaults import loaded_by_default

    known = {variant.name: variant for variant in folder.manifest.variants}
    if not wanted:
        return loaded_by_default(folder.manifest)
    if unknown := [name for name in wanted if name not in known]:
        raise CommandError(f"{folder.manifest.name}: no variant {unknown[0]!r}, known are {', '.join(known)}", _USAGE)
    return [known[name] for name in dict.fromkeys(wanted)]


def _profile(folder: RevisionFolder, chosen: Sequence[VariantManifest], threads: int, *, staged: bool) -> FamilyProfile:
    """This machine's profile; a quick one is taken and kept where it lacks a variant or a stage."""
    from variants.profiles import load_profile, save_profile
    from variants.profiling import profile_family
    from variants.session import SessionOptions

    names = [variant.name for variant in chosen]
    stages = {stage for variant in chosen for stage in variant.stages} if staged else set()
    profile = load_profile(folder, threads)
    if profile is None or not (profile.variants.keys() >= set(names) and profile.stages.keys() >= stages):
        typer.echo(f"{folder.manifest.name}: no profile of this machine yet, taking a quick one", err=True)
        profile = profile_family(folder, names, options=SessionOptions(threads=threads))
        save_profile(folder, profile)
    return profile
