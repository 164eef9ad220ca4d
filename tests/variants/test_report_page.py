"""The report's page says what was measured, loads nothing, and shows what families call themselves as text."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest

from service.commands.tables import print_frontier
from tests.service.families import chain_models, write_family
from tests.variants.reported import chain_profile, curve_of, known_samples, timed, with_manifest
from variants.measurements import Training
from variants.report.contents import Report, gather
from variants.report.page import render
from variants.report.pictures import cascade_picture, draw_cascades, frontier_pictures
from variants.repository import Repository, RevisionFolder

HOSTILE = "\"><script>alert('x')</script><img src=http://example.org/x>"


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


def test_answers_that_move_a_little_are_told_by_how_much(
    chain: RevisionFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    """Within the family's tolerance they compete, and tables and page say how far they move; beyond it they do not."""
    small, large = (variant.model_dump() for variant in chain.manifest.variants)
    large["invariance"] |= {"invariant": False, "max_probability_delta": 0.0028}
    for tolerance, printed, shown, compared in (
        (0.005, "within 0.005: p by 0.0028", "within 0.005,\nprobabilities by at most 0.0028", True),
        (0.002, "no: 0.0 % of labels, p by 0.0028", "% of labels change,\nprobabilities by at most 0.0028", False),
    ):
        report = gather(with_manifest(chain, variants=[small, large], batch_tolerance=tolerance), chain_profile(chain))
        assert [True, compared] == [point.competes for point in report.points]
        print_frontier(report)
        assert printed in capsys.readouterr().out
        assert shown in page_of(report)
