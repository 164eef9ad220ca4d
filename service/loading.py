"""Opening families for serving: what is sound is loaded, what is not is refused by name, and the rest serves."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

from router.family import Family
from service.crash_marker import CrashMarker
from service.loaded_family import LoadedFamily, assembled
from service.log_words import REFUSED
from service.paths import OpenFile, PathOpener, VariantPath, one_line, serves_stages
from service.pinning import kept_to
from service.scoped_settings import Stages
from service.shared_tokenizers import open_shared
from variants.evidence import read_evidence
from variants.manifest import FamilyManifest, VariantManifest
from variants.preparation import Preparer, Row
from variants.profiles import FamilyProfile, load_profile, save_profile, to_router_family
from variants.profiling import profile_family
from variants.repository import Repository, RepositoryError, RevisionFolder
from variants.runtimes.defaults import loaded_by_default
from variants.session import ModelLoadError, SessionOptions, open_file

logger = logging.getLogger("pareto.loading")

WARM_UP_ROWS = 8


class Device(NamedTuple):
    """Where models are opened for some of the slots: with these options, on these processor cores (none: on any)."""

    name: str
    options: SessionOptions
    cores: tuple[int, ...] = ()


_FORESEEN = (ModelLoadError, ValueError, KeyError, OSError)
"""What a damaged or foreign family makes the readers of its files raise; anything else is logged with a traceback."""


def load_family(
    repository: Repository,
    name: str,
    options: SessionOptions,
    wanted: Sequence[str] | None = None,
    report: Callable[[str], None] = logger.info,
    *,
    stages: Stages = "off",
    cascades: bool = False,
    revision: str | None = None,
    open_one: OpenFile = open_file,
    marker: CrashMarker | None = None,
    devices: Sequence[Device] = (),
) -> LoadedFamily:
    """Open a revision of a family, by default the active one: `wanted` variants, else those it loads by default.

    It is opened with `options`, or on each of the `devices` with its own. `stages` says whether chains are served as
    stages, `cascades` whether the policy may answer a row more than once; `open_one` opens the models, which the
    `marker` is told of. Where no profile of this machine is stored, a quick one is taken (seconds) and kept.
    Raises `RepositoryError`, and nothing else, where the family cannot be read, where a wanted variant does not exist
    or where no variant is left.
    """
    try:
        loading = _Loading(repository.open(name, revision), options, report, open_one, marker, devices)
        return loading.load(wanted, stages, cascades=cascades)
    except RepositoryError:
        raise
    except Exception as error:
        if not isinstance(error, _FORESEEN):
            logger.exception("family %s: a fault that nobody foresaw", name)
        raise RepositoryError(f"family {name}: {one_line(error)}") from error


def describe_family(
    folder: RevisionFolder,
    profile: FamilyProfile | None,
    wanted: Sequence[str] | None,
    preparer: Preparer,
    *,
    stages: Stages,
    cascades: bool,
    elsewhere: Mapping[str, FamilyProfile | None] = MappingProxyType({}),
) -> LoadedFamily | None:
    """What `load_family` gives, without models and evidence, from manifest and profiles alone: no file is verified.

    `elsewhere` has the profiles of further devices by their names. None where one of them lacks something. Raises
    `RepositoryError` where a wanted variant does not exist.
    """
    manifest = folder.manifest
    chosen = choose_variants(manifest, wanted)
    staged = serves_stages(stages, chosen, cascades=cascades)
    others = {name: of_device for name, of_device in elsewhere.items() if of_device is not None}
    if profile is None or len(others) < len(elsewhere):
        return None
    every = (profile, *others.values())
    if not all(_is_profiled(variant, one, staged=staged) for variant in chosen for one in every):
        return None
    names = [variant.name for variant in chosen]
    family = to_router_family(manifest, profile, names, staged=staged, elsewhere=others)
    return assembled(manifest, family, preparer, {}, {}, profile)


def choose_variants(manifest: FamilyManifest, wanted: Sequence[str] | None) -> list[VariantManifest]:
    """The variants to load: the wanted ones, else those that are loaded by default, else all.

    Raises `RepositoryError` for one that does not exist.
    """
    known = {variant.name: variant for variant in manifest.variants}
    if not wanted:
        return loaded_by_default(manifest)
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        raise RepositoryError(f"family {manifest.name}: no variant {unknown[0]!r}, known are {', '.join(known)}")
    return [known[name] for name in wanted]


def _is_profiled(variant: VariantManifest, profile: FamilyProfile, *, staged: bool) -> bool:
    stages = variant.stages if staged else ()
    return variant.name in profile.variants and profile.stages.keys() >= set(stages)


def sample_rows(folder: RevisionFolder, preparer: Preparer) -> Sequence[Row]:
    """The first rows of samples.npz, prepared. Raises `RepositoryError` where they cannot be read."""
    try:
        samples = folder.samples()
        inputs = {tensor.name: samples[tensor.name][:WARM_UP_ROWS] for tensor in folder.manifest.inputs}
        return preparer.prepare(inputs).values
    except (ValueError, TypeError) as error:
        raise RepositoryError(one_line(error)) from error


class _Loading:
    """One family on its way into memory. `refused` collects the variants with a fault."""

    def __init__(
        self,
        folder: RevisionFolder,
        options: SessionOptions,
        report: Callable[[str], None],
        open_one: OpenFile,
        marker: CrashMarker | None,
        devices: Sequence[Device],
    ) -> None:
        self._folder = folder
        self._manifest = folder.manifest
        self._name = folder.manifest.name
        self._report = report
        self._open_one = open_one
        self._marker = marker
        self._devices = devices or (Device("", options),)
        self._preparer = open_shared(folder)
        self._refused: dict[str, str] = {}

    def load(self, wanted: Sequence[str] | None, stages: Stages, *, cascades: bool) -> LoadedFamily:
        manifest = self._manifest
        chosen = choose_variants(manifest, wanted)
        for name, fault in self._folder.verify().items():
            self._refuse(name, fault)
        chosen = [variant for variant in chosen if variant.name not in self._refused]
        rows, no_rows = self._warm_up_rows()
        staged = serves_stages(stages, chosen, cascades=cascades)
        opened = {device.name: self._opened(device, chosen, rows, staged=staged) for device in self._devices}
        profiles: dict[str, FamilyProfile] = {}
        for device in self._devices:
            self._leave_refused(opened)
            profile = self._profile(opened, device, no_rows, staged=staged) if any(opened.values()) else None
            if profile is None:
                raise RepositoryError(
                    f"family {self._name}: none of its variants can be loaded ({'; '.join(self._refused.values())})"
                )
            profiles[device.name] = profile
        if self._marker is not None:
            # Not before all devices have it and its profile is there: what ends the process then would be forgiven.
            for variant in next(iter(opened.values())):
                self._marker.loaded(*self._key(variant))
        first, *others = opened
        evidence, elsewhere = partial(read_evidence, self._folder), {name: profiles[name] for name in others}
        family = to_router_family(
            manifest, profiles[first], tuple(opened[first]), staged=staged, evidence=evidence, elsewhere=elsewhere
        )
        self._tell(family, cascades=cascades)
        loaded = assembled(manifest, family, self._preparer, opened[first], self._refused, profiles[first])
        return replace(loaded, elsewhere={name: opened[name] for name in others})

    def _opened(
        self, device: Device, chosen: Sequence[VariantManifest], rows: Sequence[Row], *, staged: bool
    ) -> dict[str, VariantPath]:
        """The variants as they run on a device; one that is refused there, or was before, is none of them."""
        opener = PathOpener(
            self._folder,
            self._preparer,
            device.options,
            rows,
            staged=staged,
            open_one=self._open_one,
            marker=self._marker,
        )
        paths: dict[str, VariantPath] = {}
        with kept_to(device.cores):
            for variant in chosen:
                if variant.name not in self._refused:
                    try:
                        paths[variant.name] = opener.open(variant)
                    except (ModelLoadError, RepositoryError) as error:
                        self._refuse(variant.name, str(error))
        return paths

    def _tell(self, family: Family, *, cascades: bool) -> None:
        """What became of cascades and stages, for who reads the log."""
        if cascades and family.evidence is None and len(family.ladder) > 1:
            logger.warning("family %s: no cascades: its variants were not all evaluated on the same rows", self._name)
        stages = {stage for variant in family.variants if len(variant.stages) > 1 for stage in variant.stages}
        if stages:
            logger.info("family %s: chains are served as %d stages", self._name, len(stages))

    def _refuse(self, variant: str, fault: str) -> None:
        logger.error(REFUSED, self._name, variant, fault)
        self._refused[variant] = fault.replace(f"{self._folder.path}/", "")

    def _warm_up_rows(self) -> tuple[Sequence[Row], str]:
        """Rows to run the variants with; where they cannot be read, none and the reason."""
        try:
            return sample_rows(self._folder, self._preparer), ""
        except RepositoryError as error:
            return (), one_line(error)

    def _profile(
        self, opened: Mapping[str, dict[str, VariantPath]], device: Device, no_rows: str, *, staged: bool
    ) -> FamilyProfile | None:
        """A profile of all variants, measured where none is stored; without rows to measure on, what is stored counts.

        Then variants without a profile are refused and leave what is `opened` on each device, as do those that another
        device refuses; None where none is left.
        """
        profile = load_profile(self._folder, device.options.threads)
        names = tuple(next(iter(opened.values())))
        unprofiled = [
            name
            for name in names
            if profile is None or not _is_profiled(self._manifest.variant(name), profile, staged=staged)
        ]
        if no_rows:
            if profile is None:
                raise RepositoryError(f"family {self._name}: has no latency profile of this machine, and {no_rows}")
            logger.warning("family %s: is not warmed up: %s", self._name, no_rows)
            for variant in sorted(unprofiled):
                self._refuse(variant, f"has no latency profile of this machine, and {no_rows}")
            self._leave_refused(opened)
            return profile if len(unprofiled) < len(names) else None
        if unprofiled:
            self._report(f"family {self._name}: no latency profile of this machine yet, taking a quick one")
            with kept_to(device.cores):
                profile = profile_family(self._folder, names, mode="quick", options=device.options, noting=self._noting)
            try:
                save_profile(self._folder, profile)
            except RepositoryError as error:
                logger.warning("the profile is not kept and will be taken anew at the next start: %s", error)
        return profile

    def _noting(self, variant: str) -> AbstractContextManager[None]:
        """While a variant is measured, which is with larger batches than it was tried with."""
        return nullcontext() if self._marker is None else self._marker.loading(*self._key(variant))

    def _key(self, variant: str) -> tuple[str, str, str]:
        return self._name, self._manifest.revision, variant

    def _leave_refused(self, opened: Mapping[str, dict[str, VariantPath]]) -> None:
        for paths in opened.values():
            for name in paths.keys() & self._refused.keys():
                del paths[name]
