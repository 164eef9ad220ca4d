from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from variants.sources import fetch, fetch_first
from variants.spec import BuildError
from variants.weights import content_key, kept_weights


def test_a_cached_source_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive with the pinned hash is taken from the cache; one with another hash is not."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    content = b"an archive"
    requirements = tmp_path / "sources.txt"
    requirements.write_text(f"# why\nthing==1.0 \\\n    --hash=sha256:{hashlib.sha256(content).hexdigest()}\n")
    archive = tmp_path / "sources" / "thing-1.0.tar.gz"
    archive.parent.mkdir()
    archive.write_bytes(content)
    assert archive == fetch("thing", tmp_path, requirements)
    archive.write_bytes(b"another archive")
    with pytest.raises(BuildError):
        fetch("thing", tmp_path, requirements)


def test_a_source_that_cannot_be_had_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network every equivalent package is tried, and the error names each and asks the question to ask."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    requirements = tmp_path / "sources.txt"
    requirements.write_text("".join(f"{name}==1.0 --hash=sha256:{'0' * 64}\n" for name in ("one", "two")))
    with pytest.raises(BuildError, match=r"^one: pip cannot .*is there a network\?; two: pip cannot [^\n]*network\?$"):
        fetch_first(["one", "two"], tmp_path, requirements)


def test_an_unpinned_source_is_refused(tmp_path: Path) -> None:
    """A package without a hash in the requirements is never downloaded."""
    requirements = tmp_path / "sources.txt"
    requirements.write_text("thing==1.0\n")
    with pytest.raises(BuildError, match="does not pin thing with a hash"):
        fetch("thing", tmp_path, requirements)


def test_weights_are_kept_until_what_they_depend_on_changes(tmp_path: Path) -> None:
    """The same key trains once; another key, or a damaged file, trains again."""
    trained: list[str] = []

    def train() -> dict[str, NDArray[np.float32]]:
        trained.append("once")
        return {"w": np.full(3, len(trained), dtype=np.float32)}

    path = tmp_path / "weights" / "x.safetensors"
    key = content_key("seed 0", b"data")
    first, again = (kept_weights(path, key, train, 5) for _ in range(2))
    other = kept_weights(path, content_key("seed 0", b"other data"), train, 5)
    path.write_bytes(b"damaged")
    values = [found.weights["w"][0] for found in (first, again, other, kept_weights(path, key, train, 5))]
    assert [1, 1, 2, 3] == values
    assert [path] == list(path.parent.iterdir())


def test_what_training_cost_is_kept_with_the_weights(tmp_path: Path) -> None:
    """A build that finds them says what the build that trained them did; weights of older builds say nothing."""
    path = tmp_path / "x.safetensors"

    def train() -> dict[str, NDArray[np.float32]]:
        return {"w": np.zeros(3, dtype=np.float32)}

    trained = kept_weights(path, "key", train, 5).facts
    assert {"training_s", "labelled_rows", "training_peak_rss_bytes"} == set(trained)
    assert 5.0 == trained["labelled_rows"]
    assert trained["training_peak_rss_bytes"] > 1e6
    assert trained == kept_weights(path, "key", train, 5).facts
    save_file(train(), path, {"key": "key"})
    assert {} == kept_weights(path, "key", train, 5).facts


def test_keys_tell_parts_apart() -> None:
    """Moving a byte from one part to the next makes another key."""
    assert content_key("ab", "c") != content_key("a", "bc")
