"""What was exported from a revision for devices, as it lies beside it: `exports/exports.json` and the files it names.

Exports are no part of the revision: it is served without them, and they may come later.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import AwareDatetime, Field, ValidationError

from variants.atomic import write_atomically
from variants.frozen import Frozen
from variants.measurements import Fraction, Parity
from variants.naming import EXPORTS_FOLDER, Name
from variants.revision import RepositoryError, RevisionFolder
from variants.shared_parts import Sha256

Target = Literal["litert", "executorch"]
TARGETS: tuple[Target, ...] = get_args(Target)
SUFFIXES: dict[Target, str] = {"litert": ".tflite", "executorch": ".pte"}
RECORDS_FILE = "exports.json"

Seconds = Annotated[float, Field(gt=0.0)]


class Export(Frozen):
    """One file for devices, for one row of `tokens` tokens at a time (1 for tensors).

    `accuracy` is that of the revision's samples through this file, of which `cut_rows` had more tokens and lost their
    ends; `server_accuracy` that of the same rows through the variant as it is served, whole; `difference` is the first
    less the second with its 95 % interval, and `p_value` of the exact McNemar test between them. `parity` is of the
    rows that were not cut. Seconds are of one row on one thread of this machine; `memory_bytes` is what a process
    gained by opening the file and answering.
    """

    variant: Name
    target: Target
    tokens: Annotated[int, Field(ge=1)]
    file: Annotated[str, Field(min_length=1, max_length=255)]
    sha256: Sha256
    size_bytes: Annotated[int, Field(ge=1)]
    accuracy: Fraction
    server_accuracy: Fraction
    difference: Annotated[float, Field(ge=-1.0, le=1.0)]
    interval: tuple[float, float]
    p_value: Fraction
    rows: Annotated[int, Field(ge=1)]
    cut_rows: Annotated[int, Field(ge=0)]
    parity: Parity
    median_s: Seconds
    tail_s: Seconds
    server_median_s: Seconds
    load_s: Seconds
    memory_bytes: Annotated[int, Field(ge=0)]
    machine: str
    tools: str
    taken: AwareDatetime

    @property
    def key(self) -> tuple[str, Target, int]:
        """What a later export of the same replaces."""
        return self.variant, self.target, self.tokens

    @property
    def tied(self) -> bool:
        """Whether the rows give no evidence that it is less or more accurate than the variant as it is served."""
        return self.p_value >= 0.05


class _Records(Frozen):
    schema_version: Literal[1] = 1
    exports: tuple[Export, ...] = ()


def read_exports(folder: RevisionFolder) -> tuple[Export, ...]:
    """Return what was exported from a revision; nothing where nothing was, or what is written there cannot be read."""
    path = folder.path / EXPORTS_FOLDER / RECORDS_FILE
    try:
        return _Records.model_validate_json(path.read_bytes()).exports
    except (OSError, ValidationError):
        return ()


def save_export(folder: RevisionFolder, export: Export) -> None:
    """Add an export, in place of an older one of the same. Raises `RepositoryError` where it cannot be written."""
    path = folder.path / EXPORTS_FOLDER / RECORDS_FILE
    kept = tuple(older for older in read_exports(folder) if older.key != export.key)
    records = _Records(exports=tuple(sorted((*kept, export), key=lambda one: one.key)))
    try:
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, records.model_dump_json(indent=1).encode())
    except OSError as error:
        raise RepositoryError(f"{path}: cannot be written: {error.strerror}") from error
