"""What things in the model repository may be called, and the names that it keeps for itself."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
"""What families, revisions, variants and stages may be called: safe in paths, URLs, headers and metric labels."""

MANIFEST_FILE = "family.json"
SAMPLES_FILE = "samples.npz"
ACTIVE_FILE = "ACTIVE"
PROFILES_FOLDER = "profiles"
EXPORTS_FOLDER = "exports"
"""What came of a revision later, for devices: no part of it, as profiles are none."""


def _inside_the_folder(path: str) -> str:
    parts = path.split("/")
    if "\\" in path or "\0" in path or any(not part or part.startswith(".") for part in parts):
        raise ValueError(f"{path!r} is not a plain relative path inside the revision's folder")
    if path == MANIFEST_FILE or parts[0] in (PROFILES_FOLDER, EXPORTS_FOLDER):
        raise ValueError(f"{path!r} is a name the repository keeps for itself")
    return path


Name = Annotated[str, Field(pattern=NAME_PATTERN)]
RelativePath = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_inside_the_folder)]
"""A path below the revision's folder, with `/` between its parts; no part starts with a dot."""
