"""Profiles come from the sessions that serve and cover every variant, stage, size class and batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from variants.fingerprint import available_cores, machine_fingerprint
from variants.profiling import longest_chains, profile_family
from variants.repository import RevisionFolder
from variants.session import ModelLoadError


@pytest.mark.parametrize(
    ("chains", "longest"),
    [
        ([(), ("a",), ("a", "b"), ("a", "b")], [("a", "b")]),
        ([("a", "b"), ("a", "c"), ("d",), ("a",)], [("a", "b"), ("a", "c"), ("d",)]),
        ([()], []),
    ],
)
def test_chains_that_begin_a_longer_one_are_run_with_it(
    chains: list[tuple[str, ...]], longest: list[tuple[str, ...]]
) -> None:
    """What is left covers every stage once for each way to reach it."""
    assert longest == longest_chains(chains)


@pytest.mark.parametrize("family", ["tiny", "words"])
def test_a_profile_of_a_real_family(family: str, request: pytest.FixtureRequest) -> None:
    """Every variant has a positive, monotone table of every size class and of the batches the family runs."""
    folder: RevisionFolder = request.getfixturevalue(family)
    fractions: list[float] = []
    profile = profile_family(folder, progress=fractions.append)
    assert {variant.name for variant in folder.manifest.variants} == set(profile.variants)
    for name, table in profile.variants.items():
        assert ((1, 4) if family == "tiny" else (1, 4, 16)) == table.batches
        assert len(folder.manifest.sizes) == len(table.median_s)
        assert np.all(np.diff(table.median_s, axis=1) >= 0.0)
        assert table.memory_bytes >= folder.file(folder.manifest.variant(name).model_file).stat().st_size
    assert 1.0 == fractions[-1]


def test_stages_are_profiled_with_the_variants_that_use_them(chained_words: RevisionFolder) -> None:
    """Every stage of a named variant's chain has a table of the same shape; a variant without a chain brings none."""
    profile = profile_family(chained_words, ["sum", "other"])
    assert {"sum", "other"} == set(profile.variants)
    assert {"words-0", "words-1"} == set(profile.stages)
    for table in profile.stages.values():
        assert (profile.variants["sum"].batches, 2) == (table.batches, len(table.median_s))
    assert {"words-0"} == set(profile_family(chained_words, ["half"]).stages)
    assert {} == profile_family(chained_words, ["other"]).stages


def test_a_full_profile_has_every_batch(tiny: RevisionFolder) -> None:
    """The full mode measures all powers of two up to the family's largest batch, of the named variants only."""
    profile = profile_family(tiny, ["big"], mode="full")
    assert {"big": (1, 2, 4, 8)} == {name: table.batches for name, table in profile.variants.items()}


def test_a_model_that_cannot_be_opened_is_named(tiny: RevisionFolder) -> None:
    """Profiling a variant whose file is damaged raises with the file."""
    tiny.file("big/model.onnx").write_bytes(b"no model")
    with pytest.raises(ModelLoadError, match=r"big/model\.onnx"):
        profile_family(tiny)


def test_the_fingerprint_tells_machines_apart() -> None:
    """The same machine has the same fingerprint, another number of threads another one; people can read it."""
    one, two = machine_fingerprint(1), machine_fingerprint(2)
    assert one == machine_fingerprint(1)
    assert one.digest != two.digest
    assert "onnxruntime" in one.description
    assert f"{available_cores():g} cores" in one.description


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, np.inf),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.5),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, np.inf),
        ({}, np.inf),
    ],
)
def test_quotas_of_control_groups_are_read(tmp_path: Path, files: dict[str, str], cores: float) -> None:
    """Both versions of control groups tell the quota; without one there is no bound."""
    from variants.fingerprint import _quota_cores

    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert cores == _quota_cores(tmp_path)


def test_what_is_opened_and_measured_is_noted(chained_words: RevisionFolder) -> None:
    """One variant at a time, and stages under the name of one whose chain has them."""
    noted: list[str] = []
    now: set[str] = set()

    @contextmanager
    def noting(variant: str) -> Iterator[None]:
        assert not now
        now.add(variant)
        noted.append(variant)
        yield
        now.clear()

    profile = profile_family(chained_words, ["sum", "half", "other"], noting=noting)
    assert {"sum", "half", "other"} >= set(noted) >= {"sum", "other"}
    assert len(noted) > len(profile.variants) + len(profile.stages)
