"""A family in memory: one revision, with all that it takes to prepare its requests, run it and name its answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from router.family import Family
from service.oip.signature import Signature
from service.paths import VariantPath
from variants.manifest import FamilyManifest
from variants.preparation import Preparer
from variants.profiles import FamilyProfile


@dataclass(frozen=True, slots=True)
class LoadedFamily:
    """One revision in memory, or, under a memory budget, what is there of it.

    `paths` has the sessions of each variant in order, one for a whole graph, and as many as `Family` counts stages;
    with a budget it is changed in place, while `family` has all variants that may be loaded.
    `beginnings` names the variants whose state lets another one go on. `label_names` has the labels as bytes, [k].
    `refused` maps each variant that has a fault to the fault, in which files are named relative to the revision's
    folder, so that it may be shown to callers. `profile` has what was measured on this machine, even where it could not
    be stored. `elsewhere` has the sessions of further devices by their names.
    """

    manifest: FamilyManifest
    family: Family
    preparer: Preparer
    paths: Mapping[str, VariantPath]
    beginnings: frozenset[str]
    temperatures: Mapping[str, float]
    signature: Signature
    label_names: NDArray[np.object_]
    profile: FamilyProfile
    refused: Mapping[str, str] = field(default_factory=dict)
    elsewhere: Mapping[str, Mapping[str, VariantPath]] = field(default_factory=dict)

    def paths_on(self, device: str) -> Mapping[str, VariantPath]:
        """The sessions of a device; those of the first one where it has none of its own."""
        return self.elsewhere.get(device, self.paths)

    @property
    def name(self) -> str:
        """The family's name."""
        return self.manifest.name


def cannot_be_loaded(name: str) -> str:
    """What callers are told of a family with a fault: the fault itself may name folders of this machine."""
    return f"{name}: cannot be loaded, see the log"


def assembled(
    manifest: FamilyManifest,
    family: Family,
    preparer: Preparer,
    paths: Mapping[str, VariantPath],
    refused: Mapping[str, str],
    profile: FamilyProfile,
) -> LoadedFamily:
    """A family with these sessions, and what follows from its manifest."""
    return LoadedFamily(
        manifest=manifest,
        family=family,
        preparer=preparer,
        paths=paths,
        beginnings=_beginnings(family),
        temperatures={variant.name: manifest.variant(variant.name).temperature for variant in family.variants},
        signature=Signature.of(manifest.inputs, manifest.outputs),
        label_names=np.array([label.encode() for label in manifest.labels], dtype=object),
        profile=profile,
        refused=refused,
    )


def _beginnings(family: Family) -> frozenset[str]:
    """The variants that another one goes on from."""
    indices = range(len(family.variants))
    return frozenset(family.variants[at].name for at in indices if any(family.first_stage(at, v) for v in indices))
