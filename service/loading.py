"""Opening families for serving: what is sound is loaded, what is not is refused by name, and the rest serves."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from router.contract import Family
from service.oip.signature import Signature
from variants.manifest import FamilyManifest
from variants.preparation import LOGITS, Preparer, Row, open_preparation
from variants.profiling import load_profile, profile_family, save_profile, to_router_family
from variants.repository import Repository, RepositoryError, RevisionFolder
from variants.session import ModelLoadError, Session, SessionOptions, open_session

logger = logging.getLogger("pareto.loading")


@dataclass(frozen=True, slots=True)
class LoadedFamily:
    """One revision in memory.

    `label_names` has the labels as bytes, [k]. `refused` maps each variant that has a fault to the fault.
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


def load_family(
    repository: Repository,
    name: str,
    options: SessionOptions,
    wanted: Sequence[str] | None = None,
    report: Callable[[str], None] = logger.info,
) -> LoadedFamily:
    """Open the active revision of a family: the `wanted` variants, else those its manifest loads by default.

    Where no profile of this machine is stored, a quick one is taken (seconds) and kept. Raises `RepositoryError`
    where the family cannot be read, where a wanted variant does not exist or where no variant is left.
    """
    folder = repository.open(name)
    manifest = folder.manifest
    known = {variant.name: variant for variant in manifest.variants}
    unknown = sorted(set(wanted or ()) - set(known))
    if unknown:
        raise RepositoryError(f"family {name}: no variant {unknown[0]!r}, known are {', '.join(known)}")
    chosen = list(wanted) if wanted else [v.name for v in manifest.variants if v.load_by_default] or list(known)
    refused = dict(folder.verify())
    preparer = open_preparation(folder)
    sessions: dict[str, Session] = {}
    for variant in chosen:
        if variant in refused:
            continue
        try:
            session = open_session(folder.file(known[variant].model_file), options)
            _warm(session, preparer, folder)
            sessions[variant] = session
        except ModelLoadError as error:
            refused[variant] = str(error)
    for variant, fault in refused.items():
        logger.error("family %s: variant %s is refused: %s", name, variant, fault)
    if not sessions:
        raise RepositoryError(f"family {name}: none of its variants can be loaded ({'; '.join(refused.values())})")
    profile = load_profile(folder, options.threads)
    if profile is None or not set(sessions) <= set(profile.variants):
        report(f"family {name}: no latency profile of this machine yet, taking a quick one")
        profile = profile_family(folder, tuple(sessions), mode="quick", options=options)
        try:
            save_profile(folder, profile)
        except RepositoryError as error:
            logger.warning("the profile is not kept and will be taken anew at the next start: %s", error)
    return LoadedFamily(
        manifest=manifest,
        family=to_router_family(manifest, profile, tuple(sessions)),
        preparer=preparer,
        sessions=sessions,
        temperatures={variant: known[variant].temperature for variant in sessions},
        signature=Signature.of(manifest.inputs, manifest.outputs),
        label_names=np.array([label.encode() for label in manifest.labels], dtype=object),
        refused=refused,
    )


def _warm(session: Session, preparer: Preparer, folder: RevisionFolder) -> None:
    """Run a first batch, so that no request pays for lazy initialisation and a model that cannot run is refused."""
    samples = folder.samples()
    inputs = {tensor.name: samples[tensor.name][:8] for tensor in folder.manifest.inputs}
    rows: Sequence[Row] = preparer.prepare(inputs).values
    for batch in (rows[:1], rows):
        try:
            logits = session.run(preparer.collate(batch))[LOGITS]
        except Exception as error:
            raise ModelLoadError(f"{session.path}: does not run: {' '.join(str(error).split())[:300]}") from error
        expected = (len(batch), len(folder.manifest.labels))
        if logits.shape != expected or not np.isfinite(logits).all():
            raise ModelLoadError(f"{session.path}: expected finite logits {expected}, got shape {logits.shape}")
