"""Opening families for serving: what is sound is loaded, what is not is refused by name, and the rest serves."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from router.contract import Family
from service.oip.signature import Signature
from variants.manifest import FamilyManifest, VariantManifest
from variants.preparation import LOGITS, Preparer, Row, open_preparation
from variants.profiling import FamilyProfile, load_profile, profile_family, save_profile, to_router_family
from variants.repository import Repository, RepositoryError, RevisionFolder
from variants.session import ModelLoadError, Session, SessionOptions, open_session

logger = logging.getLogger("pareto.loading")

WARM_UP_ROWS = 8

_FORESEEN = (ModelLoadError, ValueError, KeyError, OSError)
"""What a damaged or foreign family makes the readers of its files raise; anything else is logged with a traceback."""


@dataclass(frozen=True, slots=True)
class LoadedFamily:
    """One revision in memory.

    `label_names` has the labels as bytes, [k]. `refused` maps each variant that has a fault to the fault, in which
    files are named relative to the revision's folder, so that it may be shown to callers.
    """

    manifest: FamilyManifest
    family: Family
    preparer: Preparer
    sessions: Mapping[str, Session]
    temperatures: Mapping[str, float]
    signature: Signature
    label_names: NDArray[np.object_]
    refused: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The family's name."""
        return self.manifest.name


def cannot_be_loaded(name: str) -> str:
    """What callers are told of a family with a fault: the fault itself may name folders of this machine."""
    return f"{name}: cannot be loaded, see the log"


def load_family(
    repository: Repository,
    name: str,
    options: SessionOptions,
    wanted: Sequence[str] | None = None,
    report: Callable[[str], None] = logger.info,
) -> LoadedFamily:
    """Open the active revision of a family: the `wanted` variants, else those its manifest loads by default.

    Where no profile of this machine is stored, a quick one is taken (seconds) and kept. Raises `RepositoryError`,
    and nothing else, where the family cannot be read, where a wanted variant does not exist or where no variant is
    left.
    """
    try:
        return _Loading(repository.open(name), options, report).load(wanted)
    except RepositoryError:
        raise
    except Exception as error:
        if not isinstance(error, _FORESEEN):
            logger.exception("family %s: a fault that nobody foresaw", name)
        raise RepositoryError(f"family {name}: {_one_line(error)}") from error


class _Loading:
    """One family on its way into memory. `refused` collects the variants with a fault."""

    def __init__(self, folder: RevisionFolder, options: SessionOptions, report: Callable[[str], None]) -> None:
        self._folder = folder
        self._manifest = folder.manifest
        self._name = folder.manifest.name
        self._options = options
        self._report = report
        self._preparer = open_preparation(folder)
        self._refused: dict[str, str] = {}

    def load(self, wanted: Sequence[str] | None) -> LoadedFamily:
        manifest = self._manifest
        chosen = self._chosen(wanted)
        for name, fault in self._folder.verify().items():
            self._refuse(name, fault)
        rows, no_rows = self._warm_up_rows()
        sessions: dict[str, Session] = {}
        for variant in chosen:
            if variant.name not in self._refused:
                try:
                    sessions[variant.name] = self._open(variant, rows)
                except (ModelLoadError, RepositoryError) as error:
                    self._refuse(variant.name, str(error))
        profile = self._profile(sessions, no_rows) if sessions else None
        if profile is None:
            raise RepositoryError(
                f"family {self._name}: none of its variants can be loaded ({'; '.join(self._refused.values())})"
            )
        return LoadedFamily(
            manifest=manifest,
            family=to_router_family(manifest, profile, tuple(sessions)),
            preparer=self._preparer,
            sessions=sessions,
            temperatures={variant.name: variant.temperature for variant in chosen if variant.name in sessions},
            signature=Signature.of(manifest.inputs, manifest.outputs),
            label_names=np.array([label.encode() for label in manifest.labels], dtype=object),
            refused=self._refused,
        )

    def _chosen(self, wanted: Sequence[str] | None) -> list[VariantManifest]:
        known = {variant.name: variant for variant in self._manifest.variants}
        if not wanted:
            return [variant for variant in known.values() if variant.load_by_default] or list(known.values())
        unknown = sorted(set(wanted) - set(known))
        if unknown:
            raise RepositoryError(f"family {self._name}: no variant {unknown[0]!r}, known are {', '.join(known)}")
        return [known[name] for name in wanted]

    def _refuse(self, variant: str, fault: str) -> None:
        logger.error("family %s: variant %s is refused: %s", self._name, variant, fault)
        self._refused[variant] = fault.replace(f"{self._folder.path}/", "")

    def _warm_up_rows(self) -> tuple[Sequence[Row], str]:
        """The first rows of samples.npz, prepared; where they cannot be read, none and the reason."""
        try:
            samples = self._folder.samples()
            inputs = {tensor.name: samples[tensor.name][:WARM_UP_ROWS] for tensor in self._manifest.inputs}
            return self._preparer.prepare(inputs).values, ""
        except (RepositoryError, ValueError, TypeError) as error:
            return (), _one_line(error)

    def _open(self, variant: VariantManifest, rows: Sequence[Row]) -> Session:
        session = open_session(self._folder.file(variant.model_file), self._options)
        # One row, then several: no request pays for lazy initialisation, and a model that cannot run is refused.
        for batch in (rows[:1], rows) if rows else ():
            self._try(session, batch)
        return session

    def _try(self, session: Session, batch: Sequence[Row]) -> None:
        try:
            logits = np.asarray(session.run(self._preparer.collate(batch))[LOGITS])
        except Exception as error:
            raise ModelLoadError(f"{session.path}: does not run: {_one_line(error)}") from error
        expected = (len(batch), len(self._manifest.labels))
        if logits.shape != expected or logits.dtype.kind != "f" or not np.isfinite(logits).all():
            raise ModelLoadError(
                f"{session.path}: expected finite logits {expected}, got {logits.dtype} of shape {logits.shape}"
            )

    def _profile(self, sessions: dict[str, Session], no_rows: str) -> FamilyProfile | None:
        """A profile of all sessions, measured where none is stored; without rows to measure on, what is stored counts.

        Then variants without a profile are refused and leave `sessions`; None where none is left.
        """
        profile = load_profile(self._folder, self._options.threads)
        unprofiled = set(sessions) if profile is None else set(sessions) - set(profile.variants)
        if no_rows:
            if profile is None:
                raise RepositoryError(f"family {self._name}: has no latency profile of this machine, and {no_rows}")
            logger.warning("family %s: is not warmed up: %s", self._name, no_rows)
            for variant in sorted(unprofiled):
                del sessions[variant]
                self._refuse(variant, f"has no latency profile of this machine, and {no_rows}")
            return profile if sessions else None
        if unprofiled:
            self._report(f"family {self._name}: no latency profile of this machine yet, taking a quick one")
            profile = profile_family(self._folder, tuple(sessions), mode="quick", options=self._options)
            try:
                save_profile(self._folder, profile)
            except RepositoryError as error:
                logger.warning("the profile is not kept and will be taken anew at the next start: %s", error)
        return profile


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
