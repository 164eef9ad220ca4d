from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.networks import encoder, sentences
from tests.quarters import held_out_quarters, trainer_of_quarters
from variants.architectures.image import ImageArchitecture
from variants.architectures.perceptron import Perceptron
from variants.architectures.residual import ResidualNet
from variants.architectures.scale import Scale
from variants.families.fashion.ladder import plainly
from variants.frontier import ParetoPoint
from variants.recipes.artifact import RecipeError
from variants.recipes.quantization_aware import QuantizationAware
from variants.strategies.bench import Bench
from variants.strategies.evidence import summary
from variants.strategies.fitting import largest_within
from variants.strategies.grow_improve_and_shrink import GrowImproveAndShrink
from variants.strategies.label_curve import gains
from variants.strategies.original import Original, Teaching, Workbench
from variants.strategies.report import StrategyReport, table
from variants.strategies.shrink_and_improve import ShrinkAndImprove, recovered
from variants.timing import TimingPlan
from variants.training.image_augmentation import Shift
from variants.training.label_efficiency import LabelPoint
from variants.training.settings import FitSettings

BRIEF = TimingPlan(batches=(1,), least=3, most=3, cell_s=0.01, total_s=5.0)
SETTINGS = FitSettings(epochs=3, batch=64, rate=1e-2)
TEACHING = Teaching(SETTINGS, Shift(1), views=2)
ORIGINAL = Original(ResidualNet(widths=(8, 16), blocks=(1, 1), side=14), plainly(2, rate=1e-2))


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def at(tmp_path: Path) -> Workbench:
    return Workbench(trainer_of_quarters(tmp_path), Bench(held_out_quarters(), BRIEF))


def point(name: str, quality: float, latency_s: float) -> ParetoPoint:
    return ParetoPoint(name, quality, latency_s, 100)


def test_shrinking_to_a_size_keeps_within_it_and_reports_three_points(at: Workbench) -> None:
    """At half the bytes the small network has the most weights that fit, and all of its trainings share its shape."""
    strategy = ShrinkAndImprove(share=0.5, footprint="size", teaching=TEACHING, widths=(0.25, 0.5, 0.875))
    planned = strategy.plan(ORIGINAL, at)
    report = planned.run(ORIGINAL, at)
    points = report.points
    assert ["original", "shrunk", "pruned", "improved", "patient"] == list(points)
    small = {points[role].size_bytes for role in ("shrunk", "pruned", "improved", "patient")}
    assert len(small) == 1
    assert max(small) <= 0.5 * points["original"].size_bytes
    assert isinstance(planned.shrunk, ResidualNet)
    wider = replace(planned.shrunk, widths=ORIGINAL.architecture.scaled(Scale(width=0.875)).widths)  # type: ignore[attr-defined]  # a ResidualNet
    at_most = points["original"].size_bytes / 2
    assert at.bench.costs({"wider": at.trainer.untrained("wider", wider, 0)})["wider"].size_bytes > at_most
    assert all(latency > 0 for latency in (entry.latency_s for entry in points.values()))


def test_what_was_improved_may_be_rounded_to_eight_bits(at: Workbench) -> None:
    """The improved network is measured in int8, too: a file of less than half the bytes, and part of the summary."""
    shrunk = ResidualNet(widths=(16, 32), blocks=(1, 1), side=14)
    strategy = ShrinkAndImprove(teaching=TEACHING, shrunk=shrunk, quantize=QuantizationAware(FitSettings(epochs=0)))
    report = strategy.run(Original(ResidualNet(widths=(24, 48), blocks=(1, 1), side=14), plainly(1)), at)
    assert report.points["int8"].size_bytes < 0.5 * report.points["improved"].size_bytes
    assert abs(report.gained("int8", over="improved")) < 0.1
    assert "int8: quantization-aware training" in report.steps[-1]
    assert "times faster than the original, int8: " in summary([report])


def test_growing_and_shrinking_ends_at_the_original_s_footprint(at: Workbench) -> None:
    """What is served has the original's bytes, the network in between is larger, and the patient one is the control."""
    strategy = GrowImproveAndShrink(grow=Scale(width=2.0), improve=SETTINGS, teaching=TEACHING)
    points = strategy.run(ORIGINAL, at).points
    assert points["original"].size_bytes == points["improved"].size_bytes == points["patient"].size_bytes
    assert points["grown"].size_bytes > points["original"].size_bytes
    assert "patient" not in replace(strategy, control=False).run(ORIGINAL, at).points


def test_a_strategy_that_is_run_again_trains_nothing(at: Workbench) -> None:
    """The qualities are the same, and no network is written anew."""
    strategy = ShrinkAndImprove(shrunk=Perceptron(side=7), teaching=TEACHING)
    original = Original(Perceptron(), plainly(1))
    first = strategy.run(original, at)
    before = {path: path.stat().st_mtime_ns for path in at.trainer.folder.rglob("*.safetensors")}
    again = strategy.run(original, at)
    assert "pruned" not in first.points
    assert len(first.points) == len(before) == 4
    assert before == {path: path.stat().st_mtime_ns for path in at.trainer.folder.rglob("*.safetensors")}
    for role, found in first.points.items():
        assert found.quality == again.points[role].quality


def test_other_seeds_and_other_teachers_are_other_trainings(at: Workbench) -> None:
    """What a student learnt is kept apart by its seed and by whom it learnt from, which may be one for all seeds."""
    teaching = Teaching(FitSettings(epochs=1, batch=64), Shift(1), views=1)
    one, another = Original(Perceptron(), plainly(1)), Original(Perceptron(), plainly(2))
    teacher = at.begin("original", one)
    students = [
        place.teach("improved", Perceptron(side=7), teaching, teacher, taught_as)
        for place, taught_as in ((at, one), (at, another), (replace(at, seed=1), one))
    ]
    assert len(list(at.trainer.folder.glob("*.safetensors"))) == 1 + len(students)
    fixed = replace(one, seed=0)
    assert replace(at, seed=1).begin("original", fixed).lineage == teacher.lineage
    replace(at, seed=1).teach("improved", Perceptron(side=7), teaching, teacher, fixed)
    assert len(list(at.trainer.folder.glob("*.safetensors"))) == 2 + len(students)
    assert students[0].lineage[-1].measures["teacher_parameters"] == teacher.parameters


@pytest.mark.parametrize("architecture", [Perceptron(hidden=(64,)), ResidualNet(widths=(8, 16), blocks=(1, 1))])
def test_a_footprint_that_nothing_has_is_one_clear_line(at: Workbench, architecture: ImageArchitecture) -> None:
    """Asked for a ten-thousandth, fitting says what the least is."""
    with pytest.raises(RecipeError, match=r"^no smaller network has 0\.0001 of the size; the least is 0\.\d+$"):
        largest_within(architecture, 1e-4, "size", at.trainer, at.bench)


def test_what_shrinking_lost_and_improving_got_back() -> None:
    """The recovered share is of the difference between original and shrunk; where nothing was lost it is 1."""
    points = {"original": point("o", 0.92, 4.0), "shrunk": point("s", 0.88, 1.0), "improved": point("i", 0.91, 1.0)}
    report = StrategyReport("shrink and improve", ("one",), points, ("original", "shrunk"))
    assert pytest.approx(0.75) == recovered(report)
    assert 4.0 == report.faster("improved", than="original")
    pruned = replace(report, points={**points, "pruned": point("p", 0.52, 1.0), "patient": point("w", 0.90, 1.0)})
    assert pytest.approx(0.95) == recovered(pruned, "patient", "pruned")
    nothing_lost = {**points, "shrunk": point("s", 0.93, 1.0)}
    assert 1.0 == recovered(replace(report, points=nothing_lost))


def test_a_student_may_begin_with_its_teacher_s_channels(at: Workbench) -> None:
    """Inheriting is a step of its lineage before it is taught, and what it begins with is what "pruned" is."""
    parent = at.begin("original", ORIGINAL)
    half = ORIGINAL.architecture.scaled(Scale(width=0.5))
    taught = at.teach("improved", half, replace(TEACHING, inherits=True), parent, ORIGINAL)
    pruned = at.inherit("pruned", half, parent, ORIGINAL)
    assert ["channel inheritance", "consistent distillation"] == [step.recipe for step in taught.lineage]
    assert taught.lineage[0].measures == pruned.lineage[0].measures


def test_networks_of_several_inputs_are_measured_row_by_row() -> None:
    """Sentences are timed one at a time without padding, and have an accuracy and a size like images."""
    bench = Bench(sentences().validation, BRIEF)
    points = bench.points({"one": encoder(depth=1), "three": encoder(depth=3)})
    assert points["three"].size_bytes > points["one"].size_bytes
    assert all(found.latency_s > 0 and 0 <= found.quality <= 1 for found in points.values())


def test_strategies_share_what_one_network_taught(at: Workbench) -> None:
    """Whether it is the original of one strategy or the grown network of another, its student is trained once."""
    shrinking = ShrinkAndImprove(teaching=TEACHING, shrunk=Perceptron(side=7), control=False)
    growing = GrowImproveAndShrink(ORIGINAL.architecture, ORIGINAL.recipe.fit, TEACHING, control=False)
    shrinking.run(ORIGINAL, at)
    before = set(at.trainer.folder.glob("*.safetensors"))
    growing.run(Original(Perceptron(side=7), plainly(1)), at)
    assert 1 == len(set(at.trainer.folder.glob("*.safetensors")) - before)


def test_what_seeds_have_in_common_is_told_with_its_spread() -> None:
    """Means with the least and the most: of gains over the original, or of what was lost and recovered."""
    # Unformatted: one report a line.
    grown = [
        StrategyReport("grow", (), {"original": point("o", 0.9, 1.0), "improved": point("i", 0.9 + gain, 1.0),
                                    "patient": point("p", 0.9, 1.0)}, ("original",))
        for gain in (0.01, 0.02)
    ]  # fmt: skip
    assert "improved over original, points: 1.50 (1.00 to 2.00, 2 seeds)" == summary(grown).splitlines()[0]
    points = {"original": point("o", 0.92, 4.0), "shrunk": point("s", 0.88, 1.0), "improved": point("i", 0.91, 1.0)}
    shrunk = StrategyReport("shrink", (), {**points, "patient": point("p", 0.90, 1.0)}, ("original", "shrunk"))
    assert [
        "times faster than the original, improved: 4.00 (4.00 to 4.00, 1 seeds)",
        "lost, shrunk, points: 4.00 (4.00 to 4.00, 1 seeds)",
        "  of that recovered, improved, %: 75.00 (75.00 to 75.00, 1 seeds)",
        "  of that recovered, patient, %: 50.00 (50.00 to 50.00, 1 seeds)",
    ] == summary([shrunk]).splitlines()


def test_hypervolume_grows_by_what_the_strategy_adds() -> None:
    """Worked by hand: the worst point is 0.87 at 4.4 s; the improved point adds 0.03 over the shrunk one's 3.4 s."""
    points = {"original": point("o", 0.92, 4.0), "shrunk": point("s", 0.88, 1.0), "improved": point("i", 0.91, 1.0)}
    report = StrategyReport("shrink and improve", ("one",), points, ("original", "shrunk"))
    before, after = report.hypervolumes()
    assert pytest.approx(0.01 * 3.4 + 0.04 * 0.4) == before
    assert pytest.approx(0.04 * 3.4 + 0.01 * 0.4) == after
    assert "92.00 %" in table([report])


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda: ShrinkAndImprove(share=1.0), "share 1 must lie"),
        (lambda: GrowImproveAndShrink(grow=Scale(width=0.5)), "does not grow"),
    ],
)
def test_strategies_that_cannot_be_are_refused(make: object, fault: str) -> None:
    """A share of nothing or all, and growing that shrinks, are value errors."""
    assert callable(make)
    with pytest.raises(ValueError, match=fault):
        make()


def test_what_pretraining_gained_is_told_seed_by_seed() -> None:
    """Differences are paired by seed: their mean, the least and the most."""
    alone, pretrained = LabelPoint(50, (0.5, 0.6)), LabelPoint(50, (0.53, 0.61))
    told = gains({"labels alone": [alone], "pre-trained": [pretrained], "both": [alone]})
    assert [
        "50 labels, pre-trained: gained 2.00 points (1.00 to 3.00, 2 seeds)",
        "50 labels, both: gained 0.00 points (0.00 to 0.00, 2 seeds)",
    ] == told.splitlines()
