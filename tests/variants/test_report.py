"""The report says what was measured, loads nothing, and shows what families call themselves as text."""

from __future__ import annotations

from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from service.commands.tables import print_frontier
from tests.service.families import chain_models, sign_model, write_chain, write_family
from variants.manifest import FamilyManifest
from variants.measurements import ServingFootprint, Training
from variants.profiles import FamilyProfile, VariantTable
from variants.report.cascades import CascadeCurve, cascade_curve
from variants.report.contents import Report, gather
from variants.report.exits import exits
from variants.report.lineage import lineage_tree
from variants.report.page import render
from variants.report.pictures import cascade_picture, draw_cascades, frontier_pictures
from variants.repository import Repository, RevisionFolder
from variants.scores import Scores

HOSTILE = "\"><script>alert('x')</script><img src=http://example.org/x>"
FOOTPRINT = ServingFootprint(
    loaded_bytes=2_000_000,
    peak_bytes=3_000_000,
    process_peak_bytes=90_000_000,
    largest_batch=4,
    load_s=0.05,
    cpu_s_alone=0.002,
    cpu_s_batched=0.001,
    batch=4,
)


class Tags(HTMLParser):
    """Every tag with its attributes, and whether all that was opened is closed."""

    VOID = ("meta", "input", "br", "img", "link")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert tag == self.open.pop()


@pytest.fixture
def chain(tmp_path: Path) -> RevisionFolder:
    """Two exits of one network; the quick one is right where it is sure."""
    write_chain(Repository(tmp_path), "chain")
    return Repository(tmp_path).open("chain")


def timed(folder: RevisionFolder, **row_s: float) -> FamilyProfile:
    """A profile in which a row of each variant or stage takes so long, larger batches as long as their rows."""

    def table(name: str) -> VariantTable:
        medians = tuple(row_s[name] * batch for batch in (1, 4))
        return VariantTable(
            batches=(1, 4),
            median_s=(medians,),
            tail_s=(tuple(2 * seconds for seconds in medians),),
            samples=((60, 60),),
            p99_s=((None, None),),
            load_s=0.01,
            memory_bytes=1,
        )

    manifest = folder.manifest
    return FamilyProfile(
        family=manifest.name,
        revision=manifest.revision,
        fingerprint="0" * 12,
        machine="a machine",
        taken=datetime(2026, 1, 1, tzinfo=UTC),
        mode="quick",
        threads=1,
        variants={variant.name: table(variant.name) for variant in manifest.variants},
        stages={stage.name: table(stage.name) for stage in manifest.stages},
        footprints={variant.name: FOOTPRINT for variant in manifest.variants},
    )


def chain_profile(folder: RevisionFolder) -> FamilyProfile:
    return timed(folder, small=0.001, large=0.004, first=0.0011, second=0.0032)


def with_manifest(folder: RevisionFolder, **changes: object) -> RevisionFolder:
    fields = {**folder.manifest.model_dump(), **changes}
    return RevisionFolder(folder.path, FamilyManifest.model_validate(fields))


def known_samples(folder: RevisionFolder, rows: int = 200) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Give the kept samples answers: the better variant is right, the quick one where it is sure enough."""
    random = np.random.default_rng(5)
    label = random.integers(0, 2, rows)
    confidence = random.uniform(0.5, 1.0, rows).astype(np.float32)
    right = random.uniform(size=rows) < confidence
    np.savez(folder.path / "samples.npz", x=np.zeros((rows, 4), np.float32), label=label)
    for name, predicted in (("small", np.where(right, label, 1 - label)), ("large", label)):
        path = folder.path / name / "calibration.npz"
        with np.load(path) as arrays:
            kept = {key: arrays[key] for key in ("label", "predicted", "confidence")}
        np.savez(path, **kept, sample_predicted=predicted, sample_confidence=confidence)
    return right, confidence


def curve_of(folder: RevisionFolder) -> CascadeCurve:
    curve = cascade_curve(folder, chain_profile(folder), ["small", "large"])
    assert curve is not None
    return curve


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


def page_of(report: Report) -> str:
    cascades = cascade_picture(report.curve, report.metric) if report.curve else ""
    return render(report, frontier_pictures(report.points, report.metric), cascades)


def test_the_page_has_what_was_measured(chain: RevisionFolder) -> None:
    """Planes to switch between, qualities with errors, footprints, ties, cascades and lineage are all there."""
    known_samples(chain)
    report = gather(chain, chain_profile(chain), watts_per_core=5.0)
    page = page_of(report)
    for said in (
        "accuracy over latency",
        "accuracy over size",
        "accuracy over memory",
        "Hypervolume",
        "no loaded variant is faster, smaller and within one standard error",
        "The rules were made from\n400 rows",
        "600 rows (validation part and kept samples)",
        "times 5 watts",
        ">10<",
        "1 / 2 / -",
        "What exits cost",
        "by hand → <b>small</b>",
    ):
        assert said in page
    assert {"latency", "size", "memory"} == report.hypervolumes.keys()
    assert all(0.0 < share < 1.0 for share in report.hypervolumes.values())


def test_the_page_is_whole_and_loads_nothing(chain: RevisionFolder) -> None:
    """Every tag is closed, ids are used once, and nothing refers to anything outside of the page."""
    known_samples(chain)
    tags = Tags(page_of(gather(chain, chain_profile(chain))))
    assert [] == tags.open
    ids = [str(attributes["id"]) for _, attributes in tags.found if "id" in attributes]
    assert sorted(set(ids)) == sorted(ids)
    assert 4 == [tag for tag, _ in tags.found].count("svg")
    assert not {"script", "link", "img", "iframe", "object", "image"} & {tag for tag, _ in tags.found}
    for _, attributes in tags.found:
        for name, value in attributes.items():
            if name in ("src", "href", "xlink:href", "action"):
                assert str(value).startswith("#")
            assert not name.startswith("on")


def test_names_and_notes_are_text(chain: RevisionFolder) -> None:
    """Markup in whatever a family may write stays text, wherever it stands in the page."""
    known_samples(chain)
    variants = [
        {**variant.model_dump(), "notes": HOSTILE, "recipe": HOSTILE, "lineage": [HOSTILE, HOSTILE]}
        for variant in chain.manifest.variants
    ]
    folder = with_manifest(chain, description=HOSTILE, source=HOSTILE, licence=HOSTILE, variants=variants)
    profile = chain_profile(chain).model_copy(update={"machine": HOSTILE})
    page = page_of(gather(folder, profile))
    assert "<script" not in page
    assert "<img" not in page
    assert page.count("&lt;script&gt;") >= 8
    assert [] == Tags(page).open


def test_the_page_says_what_is_not_known(chain: RevisionFolder) -> None:
    """An older revision without scores, footprints, cascades and pictures has a page all the same."""
    profile = chain_profile(chain).model_copy(update={"footprints": {}})
    chain.file("small/calibration.npz").unlink()
    report = gather(chain, profile)
    page = render(report, {})
    assert ("", (), None) == (report.compared_rows, report.found.ties, report.curve)
    assert "latency" in report.hypervolumes
    assert "memory" not in report.hypervolumes
    assert "ties are not known" in page
    assert "No pictures" in page
    assert [] == Tags(page).open


def test_variants_of_several_profiles_share_a_table(chain: RevisionFolder) -> None:
    """Where one variant was timed with other batches, the columns are those of all and gaps are dashes."""
    profile = chain_profile(chain)
    one_row = {"batches": (1,), "median_s": ((0.001,),), "tail_s": ((0.002,),), "samples": ((60,),), "p99_s": None}
    small = profile.variants["small"].model_copy(update=one_row)
    report = gather(chain, profile.model_copy(update={"variants": {**profile.variants, "small": small}}))
    assert [1, 4] == report.batches
    assert "<td>-</td></tr>" in render(report, {}).partition('id="latency"')[2].replace("\n", "")


def test_pictures_of_cascades_are_files_too(chain: RevisionFolder, tmp_path: Path) -> None:
    """The picture of the cascades has the names of the single variants as text."""
    known_samples(chain)
    draw_cascades(curve_of(chain), tmp_path / "cascades.svg", "accuracy")
    content = (tmp_path / "cascades.svg").read_text(encoding="utf-8")
    assert all(f">{name}<" in content for name in ("small", "large", "cascades"))


def test_training_and_agreement_are_shown(tmp_path: Path) -> None:
    """What training took stands in the footprint; where labels are the original model's answers, the page says so."""
    models = chain_models()
    write_family(Repository(tmp_path), "pair", {"small": (models["small"], 0.8), "large": (models["small"], 0.9)})
    folder = Repository(tmp_path).open("pair")
    training = Training(seconds=12.5, labelled_rows=7000, peak_memory_bytes=950_000_000)
    variants = [
        variant.model_copy(
            update={
                "training": training,
                "quality": variant.quality.model_copy(update={"metric": "agreement"}),
            }
        ).model_dump()
        for variant in folder.manifest.variants
    ]
    changed = with_manifest(folder, variants=variants, build={"logit_difference.small": 0.0125})
    report = gather(changed, timed(folder, small=0.001, large=0.002))
    page = page_of(report)
    assert "agreement over latency" in page
    assert "standard error of the agreement with\nthe original model's answers" in page
    assert "<td>12.5</td><td>7 k</td>\n<td>950</td>" in page
    assert [0.0125, None] == [line.logit_difference for line in report.lines]
    assert "<td>0.0125</td>\n" in page.partition('id="quality"')[2].partition('id="footprint"')[0]


def test_the_printed_tables_have_what_the_page_has(chain: RevisionFolder, capsys: pytest.CaptureFixture[str]) -> None:
    """Beside the frontier: errors by class, batch invariance, parity, tails, energy, and what training took."""
    small, large = (variant.model_dump() for variant in chain.manifest.variants)
    small["training"] = {"seconds": 12.5, "labelled_rows": 7000, "peak_memory_bytes": 950_000_000}
    small["quality"] |= {"precision": 0.81, "recall": 0.82, "f1": 0.83}
    large["invariance"] |= {"invariant": False, "label_flips": 0.023, "max_probability_delta": 0.16}
    changed = with_manifest(chain, variants=[small, large], build={"logit_difference.small": 0.0125})
    print_frontier(gather(changed, chain_profile(chain), watts_per_core=5.0))
    printed = capsys.readouterr().out
    rows = {name: [line for line in printed.splitlines() if name in line.split()] for name in ("small", "large")}
    besides = {name: [cell.strip() for cell in lines[1].strip("│ ").split("│")] for name, lines in rows.items()}
    assert [
        *(
            "small",
            f"{chain.manifest.variant('small').parameters:,}",
            "81, 82, 83",
            "the same",
            "0.0125",
            "2 / -",
            "50",
            "10",
            "12.5",
            "7000",
            "950",
        ),
    ] == besides["small"]
    assert ["no: 2.3 % of labels, p by 0.16", "-"] == besides["large"][3:5]
    assert ["-", "-", "-"] == besides["large"][-3:]
    assert "5 watts, an estimate" in printed
    assert "hypervolume" in printed


def test_macs_of_an_older_revision_are_counted_when_asked_for(chain: RevisionFolder) -> None:
    """Products of a revision that does not know its MACs are counted from its files."""
    assert [8, None] == [line.macs for line in gather(chain, chain_profile(chain)).lines]
