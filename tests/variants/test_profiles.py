"""Stored profiles keep to their shape, are only believed where they belong, and tell the router what it needs."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from router.family import Evidence
from variants.evidence import read_evidence
from variants.fingerprint import machine_fingerprint
from variants.measurements import ServingFootprint
from variants.profiles import FamilyProfile, VariantTable, load_profile, save_profile, to_router_family
from variants.profiling import profile_family
from variants.repository import RevisionFolder


def test_a_saved_profile_is_loaded_and_verifies(tiny: RevisionFolder) -> None:
    """A profile is read back as it was, lies beside the manifest and does not disturb the files it lists."""
    profile = profile_family(tiny)
    save_profile(tiny, profile)
    assert profile == load_profile(tiny)
    assert [f"{machine_fingerprint().digest}.json"] == [path.name for path in (tiny.path / "profiles").iterdir()]
    assert {} == tiny.verify()


def test_profiling_one_variant_keeps_the_others(tiny: RevisionFolder) -> None:
    """Saving a profile of one variant replaces its table and leaves those of the others."""
    both = profile_family(tiny)
    save_profile(tiny, both)
    big = profile_family(tiny, ["big"])
    save_profile(tiny, big)
    loaded = load_profile(tiny)
    assert loaded is not None
    assert {"small": both.variants["small"], "big": big.variants["big"]} == loaded.variants


def test_a_profile_of_another_kind_of_machine_is_not_used(tiny: RevisionFolder) -> None:
    """A profile of other threads, another revision or no valid JSON is as if there were none."""
    assert load_profile(tiny) is None
    profile = profile_family(tiny)
    save_profile(tiny, profile)
    assert load_profile(tiny, threads=2) is None
    path = tiny.path / "profiles" / f"{profile.fingerprint}.json"
    foreign = {**json.loads(path.read_text()), "revision": "2"}
    for content in (json.dumps(foreign), path.read_text()[:100], ""):
        path.write_text(content)
        assert load_profile(tiny) is None


def test_the_router_gets_the_cheapest_first(words: RevisionFolder, tiny: RevisionFolder) -> None:
    """Variants are ordered by one row of the middle size class and carry what the manifest measured."""
    profile = profile_family(tiny)
    slow = profile.variants["small"].model_copy(update={"median_s": ((1.0, 2.0),), "tail_s": ((2.0, 4.0),)})
    profile = profile.model_copy(update={"variants": {**profile.variants, "small": slow}})
    family = to_router_family(tiny.manifest, profile, ["small", "big"])
    assert ["big", "small"] == [variant.name for variant in family.variants]
    assert (0.7, ((1.0, 2.0),)) == (family.variants[1].quality, family.variants[1].latency.median_s)
    assert ("tiny", "1", 8, (1,)) == (family.name, family.revision, family.max_batch, family.sizes)
    assert ["big"] == [variant.name for variant in to_router_family(tiny.manifest, profile, ["big"]).variants]
    assert (4, 8) == to_router_family(words.manifest, profile_family(words), ["sum"]).sizes


def slowed(profile: FamilyProfile, **factors: float) -> FamilyProfile:
    """The profile with stages that take exactly 1 s a row, times a factor; tails twice that."""

    def table(name: str, factor: float) -> VariantTable:
        one = profile.stages[name]
        median_s = tuple(tuple(factor * batch for batch in one.batches) for _ in one.median_s)
        tail_s = tuple(tuple(2 * seconds for seconds in row) for row in median_s)
        return one.model_copy(update={"median_s": median_s, "tail_s": tail_s})

    stages = {name.replace("_", "-"): factor for name, factor in factors.items()}
    return profile.model_copy(update={"stages": {name: table(name, factor) for name, factor in stages.items()}})


def test_a_staged_variant_is_its_chain(chained_words: RevisionFolder) -> None:
    """It takes the sum of its stages, goes on where another one ends, and the order follows the sums."""
    profile = slowed(profile_family(chained_words), words_0=1.0, words_1=3.0)
    names = ["sum", "other", "half"]
    family = to_router_family(chained_words.manifest, profile, names, staged=True)
    assert ["other", "half", "sum"] == [variant.name for variant in family.variants]
    other, half, whole = family.variants
    assert (("whole",), ("words-0",), ("words-0", "words-1")) == (other.stages, half.stages, whole.stages)
    assert ((1.0, 4.0, 16.0), (4.0, 16.0, 64.0)) == (half.latency.median_s[1], whole.latency.median_s[1])
    assert (8.0, 32.0, 128.0) == whole.latency.tail_s[0]
    assert (1, 0) == (family.first_stage(1, 2), family.first_stage(0, 2))
    assert sum(table.memory_bytes for table in profile.stages.values()) == whole.memory_bytes
    unstaged = to_router_family(chained_words.manifest, profile, names)
    assert {("whole",)} == {variant.stages for variant in unstaged.variants}


def test_a_chain_without_a_profile_is_run_whole(chained_words: RevisionFolder) -> None:
    """Where a stage was not measured, its variants are whole graphs; only batches that all stages have count."""
    profile = slowed(profile_family(chained_words), words_0=1.0, words_1=3.0)
    short = profile.stages["words-0"]
    short = short.model_copy(
        update={
            "batches": (1, 16),
            "median_s": tuple((row[0], row[2]) for row in short.median_s),
            "tail_s": tuple((row[0], row[2]) for row in short.tail_s),
        }
    )
    mixed = profile.model_copy(update={"stages": {**profile.stages, "words-0": short}})
    (whole,) = to_router_family(chained_words.manifest, mixed, ["sum"], staged=True).variants
    assert ((1, 16), (4.0, 64.0)) == (whole.latency.batches, whole.latency.median_s[0])
    bare = profile.model_copy(update={"stages": {"words-0": short}})
    family = to_router_family(chained_words.manifest, bare, ["sum", "half"], staged=True)
    assert {"sum": ("whole",), "half": ("words-0",)} == {variant.name: variant.stages for variant in family.variants}


def test_evidence_follows_the_order_of_the_family(tiny: RevisionFolder) -> None:
    """Whatever the order of the names given, the evidence is asked for in the family's own."""
    profile = profile_family(tiny)
    slow = profile.variants["small"].model_copy(update={"median_s": ((1.0, 2.0),), "tail_s": ((2.0, 4.0),)})
    profile = profile.model_copy(update={"variants": {**profile.variants, "small": slow}})
    asked: list[Sequence[str]] = []

    def evidence(names: Sequence[str]) -> Evidence | None:
        asked.append(names)
        return read_evidence(tiny, names)

    family = to_router_family(tiny.manifest, profile, ["small", "big"], evidence=evidence)
    assert [["big", "small"]] == asked
    assert family.evidence is not None
    assert (2, 10) == family.evidence.correct.shape
    assert to_router_family(tiny.manifest, profile, ["small", "big"]).evidence is None


def test_a_profile_without_stages_is_still_read(tiny: RevisionFolder) -> None:
    """Files from before stages were measured load, with none."""
    profile = profile_family(tiny)
    save_profile(tiny, profile)
    path = tiny.path / "profiles" / f"{profile.fingerprint}.json"
    older = {name: value for name, value in json.loads(path.read_text()).items() if name not in ("stages", "executors")}
    path.write_text(json.dumps(older))
    loaded = load_profile(tiny)
    assert loaded is not None
    assert ({}, None, profile.variants) == (loaded.stages, loaded.executors, loaded.variants)


def test_footprints_stay_while_latencies_are_taken_anew(tiny: RevisionFolder) -> None:
    """A footprint is kept with the profile, beside later ones and when latencies are measured again."""
    profile = profile_family(tiny)
    fields = {"loaded_bytes": 1, "peak_bytes": 2, "process_peak_bytes": 3, "largest_batch": 8, "batch": 8}
    footprint = ServingFootprint.model_validate({**fields, "load_s": 0.1, "cpu_s_alone": 0.1, "cpu_s_batched": 0.1})
    for name in ("small", "big"):
        save_profile(tiny, profile.model_copy(update={"footprints": {name: footprint}}))
    save_profile(tiny, profile)
    loaded = load_profile(tiny)
    assert loaded is not None
    assert {"small": footprint, "big": footprint} == loaded.footprints


def test_a_profile_of_an_older_version_is_read(tiny: RevisionFolder) -> None:
    """Profiles without 99th percentiles and footprints are good for serving as they are."""
    profile = profile_family(tiny)
    save_profile(tiny, profile)
    path = tiny.path / "profiles" / f"{profile.fingerprint}.json"
    older = json.loads(path.read_text())
    del older["footprints"]
    for table in older["variants"].values():
        del table["p99_s"]
    path.write_text(json.dumps(older))
    loaded = load_profile(tiny)
    assert loaded is not None
    assert (None, {}) == (loaded.variants["small"].p99_s, loaded.footprints)


def test_a_profile_must_be_rectangular(tiny: RevisionFolder) -> None:
    """A table that lacks a batch in one size class is not a profile."""
    fields = profile_family(tiny, ["big"]).model_dump()
    fields["variants"]["big"]["tail_s"] = ((0.1,),)
    with pytest.raises(ValueError, match="one row a size class"):
        FamilyProfile.model_validate(fields)
