"""Sets of loaded variants against each other: which are compared, and what cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtests.loaded_bench import main, sets_of
from tests.service.families import sign_model, write_family
from variants.repository import Repository


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """One family of two variants, both loaded by default."""
    repository = Repository(tmp_path)
    write_family(repository, "sign", {name: (sign_model(), 0.8) for name in ("small", "large")})
    return repository


def test_what_is_named_is_compared_with_what_is_loaded_by_default(repository: Repository) -> None:
    """Variants are told apart by commas."""
    manifest = repository.open("sign").manifest
    sets = sets_of(manifest, ["one=large", "two=large,small"])
    assert {"default": {"small", "large"}, "one": {"large"}, "two": {"small", "large"}} == {
        name: set(variants) for name, variants in sets.items()
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "nothing to compare: name other variants to load"),
        (["--set", "x=small,tiny"], "--set x=small,tiny: sign has no variant 'tiny', but small, large"),
    ],
)
def test_what_cannot_be_compared_is_one_line(
    repository: Repository, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    """With what to do about it."""
    with pytest.raises(SystemExit, match="1"):
        main(["--models", str(repository.root), "--family", "sign", *arguments])
    out = capsys.readouterr().out
    assert f"bench-loaded: {said}" in out.replace("\n", " ")
    assert 1 == out.count("bench-loaded:")
