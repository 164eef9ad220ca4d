"""Tokenizers of text families: equal ones are shared, and they are in memory no longer than something needs them."""

from __future__ import annotations

import asyncio
import gc
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pytest

import service.residency
from router.contract import Slot
from router.policies import policy_named
from router.scheduler import Scheduler
from service.in_memory import taken_by_family
from service.lazy_preparer import LazyPreparer
from service.piecewise import PiecewiseFamily
from service.residency import Residency
from service.shared_tokenizers import open_shared
from tests.variants import conftest as built
from variants.atomic import sha256_of
from variants.repository import Repository, RepositoryError, RevisionFolder
from variants.session import SessionOptions

words_fields = built.words_fields
"""The fixture of that name, for these tests too."""
TEXTS = {"text": np.array([b"good day"], object)}


@pytest.fixture
def folders(tmp_path: Path, words_fields: dict[str, Any]) -> list[RevisionFolder]:
    """Three families of text: two with the same tokenizer, and one with another one."""
    repository = Repository(tmp_path)
    first = built.publish_words(repository, words_fields)
    for name in ("same", "other"):
        shutil.copytree(tmp_path / "words", tmp_path / name)
        manifest = tmp_path / name / first.path.name / "family.json"
        text = manifest.read_text(encoding="utf-8").replace('"name": "words"', f'"name": "{name}"')
        manifest.write_text(text, encoding="utf-8")
    file = tmp_path / "other" / first.path.name / "tokenizer.json"
    digest = next(entry.sha256 for entry in first.manifest.files if entry.path == "tokenizer.json")
    file.write_bytes(file.read_bytes().replace(b"day", b"dey"))
    manifest.write_text(manifest.read_text(encoding="utf-8").replace(digest, sha256_of(file)), encoding="utf-8")
    return [repository.open(name) for name in ("words", "same", "other")]


def test_equal_tokenizers_are_opened_once_and_kept_while_one_family_has_them(folders: list[RevisionFolder]) -> None:
    """Many threads at once get the same; another file is another one; the last that closes it lets it go."""
    one, same, other = (LazyPreparer(folder) for folder in folders)
    with ThreadPoolExecutor(4) as pool:
        opened = list(pool.map(LazyPreparer.open, [one, same, other] * 4))
    assert len({id(preparer) for preparer in opened}) == 2
    assert one.open() is same.open()
    assert one.prepare(TEXTS).values[0].tolist() == opened[0].prepare(TEXTS).values[0].tolist()
    kept = id(opened.pop(0))
    opened.clear()
    one.close()
    gc.collect()
    assert (id(same.open()), one.is_open, one.holds_tokenizer) == (kept, False, False)
    assert id(open_shared(folders[0])) == kept


def test_a_tokenizer_that_is_not_what_the_manifest_says_is_shared_with_nobody(folders: list[RevisionFolder]) -> None:
    """Its family is told; the one whose file is sound has its own, whoever came first."""
    broken, sound, _ = folders
    file = broken.file("tokenizer.json")
    file.write_bytes(file.read_bytes().replace(b"day", b"dey"))
    with pytest.raises(RepositoryError, match=r"tokenizer\.json"):
        open_shared(broken)
    assert open_shared(sound).prepare(TEXTS).sizes == [4]


def test_a_tokenizer_comes_and_goes_with_what_is_in_memory(
    folders: list[RevisionFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first variant brings it, the last takes it along; what a request opened in vain is closed as well."""
    monkeypatch.setattr(service.residency, "UNUSED_S", 0.0)
    monkeypatch.setattr(service.residency, "TICK_S", 0.01)
    repository = Repository(folders[0].path.parent.parent)

    async def scenario() -> None:
        names = ("words", "same")
        pieces = {
            name: PiecewiseFamily(repository, name, SessionOptions(), None, stages="off", cascades=False)
            for name in names
        }
        assert not any(piece.preparer.holds_tokenizer for piece in pieces.values())
        residency = Residency(pieces, 1, (), 1)
        scheduler = Scheduler([piece.family() for piece in pieces.values()], [Slot(0)], policy_named("casc"))

        async def until(condition: Callable[[], bool]) -> None:
            async with asyncio.timeout(20.0):
                while not condition():
                    await residency.moves.in_thread(lambda: None)
                    await asyncio.sleep(0)

        pieces["words"].preparer.prepare(TEXTS)
        assert pieces["words"].preparer.holds_tokenizer
        residency.begin(scheduler, lambda change: change(monotonic()))
        try:
            await until(lambda: not pieces["words"].preparer.holds_tokenizer)
            residency.allow(8 << 30, ())
            await until(lambda: all(piece.paths for piece in pieces.values()))
            assert all(piece.preparer.holds_tokenizer for piece in pieces.values())
            sizes = taken_by_family(residency.pieces)
            alone = {name: sum(piece.bytes.values()) for name, piece in pieces.items()}
            assert sizes["words"] < alone["words"], "what is shared is shared out"
            residency.allow(1, ())
            await until(lambda: not any(piece.preparer.holds_tokenizer for piece in pieces.values()))
            assert not any(piece.paths for piece in pieces.values())
        finally:
            residency.stop()

    asyncio.run(scenario())
