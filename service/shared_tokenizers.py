"""Tokenizers that families share: hundreds of families that were tuned from one model have the same one.

It takes many times its file in memory, more than a small variant does. What is equal (the file's SHA-256 and how it is
used) is opened once and kept as long as some family has it.
"""

from __future__ import annotations

from contextlib import suppress
from threading import Lock
from weakref import WeakValueDictionary

from variants.manifest import TextPreparation
from variants.preparation import Preparer, open_preparation
from variants.repository import RepositoryError, RevisionFolder
from variants.resident import give_back

BYTES_PER_BYTE = 18
"""In memory, for each byte of the file, where no profile says what it takes: measured were 7.7 and 8.3 MB for WordPiece
of 466 and 452 KB (a BPE of 1.8 MB takes 8 times its file, a Unigram of 6.2 MB 42 times)."""

_opened: WeakValueDictionary[tuple[str, int, str], Preparer] = WeakValueDictionary()
_opening = Lock()


def open_shared(folder: RevisionFolder) -> Preparer:
    """What prepares the rows of a revision, shared with others where it has a tokenizer. Any thread may call it.

    Raises `RepositoryError` where the tokenizer cannot be read or is not what the manifest says: another family would
    get it too.
    """
    key = _key(folder)
    if key is None:
        return open_preparation(folder)
    with _opening:
        found = _opened.get(key)
        if found is None:
            broken = folder.broken_files([_file(folder)])
            if broken:
                raise RepositoryError("; ".join(f"{folder.path / path}: {fault}" for path, fault in broken.items()))
            found = _opened[key] = open_preparation(folder)
        return found


def warm(folder: RevisionFolder) -> None:
    """Have the library take now what it takes with the first tokenizer of a process, some 2 MB, by opening this one.

    Else a budget would think it free. What is wrong with the tokenizer is told where it is needed.
    """
    with suppress(RepositoryError):
        open_shared(folder)
    give_back()


def tokenizer_name(folder: RevisionFolder) -> str | None:
    """What the tokenizer is counted as, by all families that share it; None for a family that has none."""
    key = _key(folder)
    return None if key is None else "tokenizer:" + ":".join(map(str, key))


def tokenizer_bytes(folder: RevisionFolder, measured: int | None = None) -> int:
    """What the tokenizer is thought to take in memory: as measured, if it was, and no less than its file.

    By the manifest: a missing file refuses variants by name.
    """
    size_bytes = folder.size_bytes(_file(folder))
    return BYTES_PER_BYTE * size_bytes if measured is None else max(measured, size_bytes)


def _key(folder: RevisionFolder) -> tuple[str, int, str] | None:
    preparation = folder.manifest.preparation
    if not isinstance(preparation, TextPreparation):
        return None
    entries = {entry.path: entry.sha256 for entry in folder.manifest.files}
    digest = entries.get(preparation.tokenizer_file)
    return None if digest is None else (digest, preparation.max_tokens, folder.manifest.inputs[0].name)


def _file(folder: RevisionFolder) -> str:
    preparation = folder.manifest.preparation
    assert isinstance(preparation, TextPreparation), "asked of families with a tokenizer"
    return preparation.tokenizer_file
