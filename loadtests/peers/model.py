"""Which model file the peers serve, told by environment variables, and opened as the gateway opens it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from variants.manifest import FamilyManifest, VariantManifest
from variants.preparation import Preparer, open_preparation
from variants.repository import Repository
from variants.session import Session, SessionOptions, open_file

MODELS = "PEER_MODELS"
FAMILY = "PEER_FAMILY"
VARIANT = "PEER_VARIANT"
THREADS = 1


@dataclass(frozen=True, slots=True)
class PeerModel:
    """One variant, ready to run, and what its family says of it."""

    family: FamilyManifest
    variant: VariantManifest
    preparer: Preparer
    session: Session


def open_peer_model() -> PeerModel:
    """Open the variant that the environment names. Raises `KeyError` where a variable or the variant is missing."""
    folder = Repository(Path(os.environ[MODELS])).open(os.environ[FAMILY])
    variant = folder.manifest.variant(os.environ[VARIANT])
    session = open_file(folder, variant.model, SessionOptions(threads=THREADS))
    return PeerModel(folder.manifest, variant, open_preparation(folder), session)
