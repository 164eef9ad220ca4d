"""What settings name that is not here: processor cores, variants, families. Known before anything is served.

`pareto doctor` tells of all of it. `pareto serve` ends where nothing could be served; of what is ignored the log has a
warning.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping

from router.policies import LAZY
from service.configuration import SettingsError
from service.pinning import PinningError, check_cores, core_of_slots
from service.settings import Settings
from variants.manifest import FamilyManifest
from variants.repository import Repository, RepositoryError
from variants.runtimes.defaults import loaded_by_default

_MOST_NAMED = 3
"""Families whose variants a line names."""


def check_cores_of(settings: Settings) -> None:
    """Raises `SettingsError` where slots are to run on processor cores that they cannot have."""
    try:
        core_of_slots(settings.slot_cores, len(settings.slot_cores))
        for device, own in settings.devices.items():
            check_cores(device, own.cores)
    except PinningError as error:
        raise SettingsError(str(error)) from None


def check_policy(settings: Settings, repository: Repository) -> None:
    """Raises `SettingsError` where the policy names a variant that no family would be served with.

    Families that cannot be read are left out of account; where none can be, others tell of it.
    """
    kind, _, variant = settings.policy.removesuffix(LAZY).partition(":")
    if kind != "fixed":
        return
    loaded: dict[str, Collection[str]] = {}
    built: dict[str, Collection[str]] = {}
    for name, manifest in _manifests(repository):
        built[name] = [one.name for one in manifest.variants]
        wanted = settings.load_of(name) or [one.name for one in loaded_by_default(manifest)]
        # A family of which variants are wanted that there are not is not served.
        if set(wanted) <= set(built[name]):
            loaded[name] = wanted
    if not loaded or _those_with(variant, loaded):
        return
    said = f"policy {settings.policy!r}: no family that is served has a variant {variant!r}"
    if there := _those_with(variant, built):
        raise SettingsError(f"{said}; {there[0]} has it, but does not load it: name it in families.{there[0]}.load")
    known = "; ".join(f"{name}: {', '.join(names)}" for name, names in list(loaded.items())[:_MOST_NAMED])
    more = "; ..." if len(loaded) > _MOST_NAMED else ""
    raise SettingsError(f"{said}; there are, of {known}{more}")


def ignored(settings: Settings, families: Collection[str]) -> Iterator[tuple[str, str]]:
    """What settings say of families that are not in the repository, and what means nothing without another setting.

    Yields the setting, and a line about it.
    """
    for name in sorted(set(settings.families) - set(families)):
        yield f"families.{name}", f"means nothing: {_not_there(name, families)}"
    if settings.pinned and settings.memory_budget is None:
        yield "pinned", "means nothing without a memory_budget: everything stays in memory"
        return
    for name in sorted(set(settings.pinned) - set(families)):
        yield "pinned", _not_there(name, families)


def _manifests(repository: Repository) -> Iterator[tuple[str, FamilyManifest]]:
    for name in repository.families():
        try:
            yield name, repository.open(name).manifest
        except RepositoryError:
            continue


def _those_with(variant: str, families: Mapping[str, Collection[str]]) -> list[str]:
    return [name for name, variants in families.items() if variant in variants]


def _not_there(name: str, families: Collection[str]) -> str:
    near = difflib.get_close_matches(name, families, n=1)
    return f"{name!r} is not in the repository{f'; did you mean {near[0]!r}?' if near else ''}"
