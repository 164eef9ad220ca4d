"""What a report is made of: cascades row by row, lineages, and what exits cost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.service.families import sign_model, write_family
from tests.variants.reported import chain_profile, curve_of, known_samples, timed, with_manifest
from variants.report.cascades import cascade_curve
from variants.report.contents import gather
from variants.report.exits import exits
from variants.report.lineage import lineage_tree
from variants.report.page import render
from variants.repository import Repository, RevisionFolder
from variants.scores import Scores


def test_cascades_are_followed_row_by_row(chain: RevisionFolder) -> None:
    """Every operating point is what sending on the rows below some confidence gives, in time and in right answers."""
    right, confidence = known_samples(chain)
    curve = curve_of(chain)
    singles = [(point.start, point.quality, point.latency_s) for point in curve.singles]
    assert [("small", right.mean(), 0.001), ("large", 1.0, 0.004)] == singles
    assert (200, 400) == (curve.rows, curve.learnt_rows)
    assert len(curve.cascades) > 2
    ascending = np.sort(confidence)
    for point in curve.cascades:
        sent = confidence <= ascending[round(point.escalated * 200) - 1]
        assert "small" == point.start
        assert pytest.approx((right | sent).mean()) == point.quality
        # As stages: the first always, the second where it goes on.
        assert pytest.approx(0.0011 + sent.mean() * 0.0032) == point.latency_s


def test_gains_compare_with_a_variant_on_the_same_rows(chain: RevisionFolder) -> None:
    """The cascade in place of the better variant promised to be as good in less time; what came of it is compared."""
    known_samples(chain)
    small, large = curve_of(chain).gains
    assert small.as_quick is None
    assert small.quality_gained() is None
    assert large.as_good is not None
    assert large.as_good.learnt_quality >= large.single.learnt_quality
    assert large.as_good.learnt_s < large.single.learnt_s
    kept = large.quality_kept()
    assert kept is not None
    assert pytest.approx(large.as_good.quality - large.single.quality) == kept.difference


@pytest.mark.parametrize("lost", ["samples.npz", "small/calibration.npz"])
def test_no_cascades_without_what_they_are_made_from(chain: RevisionFolder, lost: str) -> None:
    """Where answers on held-out rows are not stored, or one variant stands alone, there is no curve."""
    assert None is cascade_curve(chain, chain_profile(chain), ["large"])
    chain.file(lost).unlink()
    assert None is cascade_curve(chain, chain_profile(chain), ["small", "large"])


def test_lineages_join_where_they_are_the_same() -> None:
    """Common steps are told once; a variant hangs below its last step."""
    (encoder,) = lineage_tree({"a": ("encoder", "tuned"), "b": ("encoder", "tuned", "int8"), "c": ("encoder", "cut")})
    tuned, cut = encoder.next
    assert ("encoder", [], ["a"], ["c"]) == (encoder.name, encoder.variants, tuned.variants, cut.variants)
    assert [("int8", ["b"])] == [(step.name, step.variants) for step in tuned.next]
    assert ["origin not recorded"] == [step.name for step in lineage_tree({"x": ()})]


def test_exits_cost_what_stages_add_and_training_together_takes(chain: RevisionFolder) -> None:
    """An exit has its seconds whole and as stages; with a counterpart, what that one is better by on the same rows."""
    small, large = exits(chain.manifest, chain_profile(chain), None)
    assert pytest.approx((0.001, 0.0011)) == (small.whole_s, small.staged_s)
    assert pytest.approx((0.004, 0.0043)) == (large.whole_s, large.staged_s)
    assert (None, None) == (small.alone, small.lost)
    alone = chain.manifest.variant("large").model_copy(update={"name": "solo", "stages": (), "counterpart": "large"})
    manifest = chain.manifest.model_copy(update={"variants": (*chain.manifest.variants, alone)})
    profile = chain_profile(chain)
    profile = profile.model_copy(update={"variants": {**profile.variants, "solo": profile.variants["large"]}})
    scores = Scores("test part", {"large": np.zeros(100), "solo": np.ones(100), "small": np.zeros(100)})
    _, large = exits(manifest, profile, scores)
    assert (alone, 2) == (large.alone, len(large.variant.stages))
    assert large.lost is not None
    assert (1.0, False) == (large.lost.difference, large.lost.tied)


def test_a_counterpart_is_shown_beside_its_exit(chain: RevisionFolder) -> None:
    """The page has both qualities and the paired difference; the counterpart competes with nobody."""
    single = chain.manifest.variant("large").model_dump()
    solo = {**single, "name": "solo", "stages": (), "counterpart": "large"}
    variants = [*(variant.model_dump() for variant in chain.manifest.variants), solo]
    folder = with_manifest(chain, variants=variants)
    row_s = {"small": 0.001, "large": 0.004, "solo": 0.0001, "first": 0.0011, "second": 0.0032}
    report = gather(folder, timed(folder, **row_s))
    assert {"solo": "not compared"} == {
        line.point.name: line.verdict for line in report.lines if line.point.name == "solo"
    }
    assert "solo" not in report.found.on
    page = render(report, {}).partition('id="exits"')[2]
    assert "+0.0 ± 0.0" in page
    assert "what another seed would give is not in it" in page


def test_nothing_left_that_competes(chain: RevisionFolder) -> None:
    """Where all sound variants but a counterpart are gone, there is a report without a frontier and hypervolume."""
    solo = {**chain.manifest.variant("large").model_dump(), "name": "solo", "stages": (), "counterpart": "large"}
    folder = with_manifest(chain, variants=[*(variant.model_dump() for variant in chain.manifest.variants), solo])
    profile = timed(folder, small=0.001, large=0.004, solo=0.004, first=0.0011, second=0.0032)
    report = gather(folder, profile.model_copy(update={"variants": {"solo": profile.variants["solo"]}}))
    assert ((), {}) == (report.found.on, report.hypervolumes)


def test_independent_variants_are_no_exits(tmp_path: Path) -> None:
    """A family without chains has nothing to say of exits."""
    write_family(Repository(tmp_path), "sign", {"only": (sign_model(), 0.8)})
    folder = Repository(tmp_path).open("sign")
    assert () == exits(folder.manifest, timed(folder, only=0.001), None)
