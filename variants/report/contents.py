"""What the frontier report says, gathered from the manifest, this machine's profile and the stored rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from variants.frontier import Frontier, ParetoPoint, dominated_area, frontier
from variants.manifest import FamilyManifest, VariantManifest
from variants.measurements import ServingFootprint
from variants.ondevice.records import Export, read_exports
from variants.paired import Comparison, compare
from variants.preparation import open_preparation
from variants.profiles import FamilyProfile, VariantTable
from variants.report.cascades import CascadeCurve, cascade_curve
from variants.report.exits import Exit, exits
from variants.report.lineage import Step, lineage_tree
from variants.report.ports import Ports, ports_of
from variants.revision import RevisionFolder
from variants.scores import Scores, read_scores
from variants.selection import not_competing
from variants.shared_sizes import own_bytes

DEFAULT_WATTS_PER_CORE = 4.0
"""About what a busy core of a large server processor draws: its rated power over its cores."""
BEYOND_THE_DEAREST = 1.1
"""Where the box of the hypervolume ends: at the dearest variant itself, what that one adds would not count."""


@dataclass(frozen=True, slots=True)
class Line:
    """One variant: what it is, what it gives, what it costs, and whether it is worth having.

    `verdict` is its place in the frontier, `ties` the variants it cannot be told from, `why` the reason for being
    loaded by default or not. `own_bytes` is what its graph takes on the disk that no other one refers to; `point` has
    the size of the whole. `logit_difference` is the largest that the build saw between its logits and those of the
    original model on the same rows; None where there was no original to compare with.
    """

    variant: VariantManifest
    point: ParetoPoint
    table: VariantTable
    footprint: ServingFootprint | None
    macs: int | None
    verdict: str
    ties: tuple[str, ...]
    why: str
    own_bytes: int
    logit_difference: float | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that the report says of one revision, variants fastest first.

    `compared_rows` names the rows on which variants were compared, empty where they could not be. `hypervolumes` are
    shares of the box between guessing and perfection, and from no cost to a tenth beyond the dearest, by plane.
    """

    manifest: FamilyManifest
    profile: FamilyProfile
    lines: tuple[Line, ...]
    found: Frontier
    compared_rows: str
    comparisons: Mapping[tuple[str, str], Comparison]
    hypervolumes: Mapping[str, float]
    curve: CascadeCurve | None
    exits: tuple[Exit, ...]
    lineage: tuple[Step, ...]
    ports: Ports
    exports: tuple[Export, ...]
    watts_per_core: float

    @property
    def points(self) -> list[ParetoPoint]:
        """The points of all variants."""
        return [line.point for line in self.lines]

    @property
    def batches(self) -> list[int]:
        """The batches that some variant was timed with, ascending: not all need the same profile."""
        return sorted({batch for line in self.lines for batch in line.table.batches})

    @property
    def metric(self) -> str:
        """What quality is, in one or two words."""
        return self.manifest.variants[0].quality.metric


def gather(folder: RevisionFolder, profile: FamilyProfile, watts_per_core: float = DEFAULT_WATTS_PER_CORE) -> Report:
    """Gather the report of a revision; variants that the profile lacks are left out."""
    manifest = folder.manifest
    points = points_of(manifest, profile)
    names = [point.name for point in points]
    scores = read_scores(folder, names)
    comparisons = _comparisons(scores, names)
    found = frontier(points, (lambda first, second: comparisons[first, second]) if scores else None)
    loaded = [name for name in names if manifest.variant(name).load_by_default]
    return Report(
        manifest=manifest,
        profile=profile,
        lines=tuple(_line(folder, profile, point, found) for point in points),
        found=found,
        compared_rows=f"{len(scores.of[names[0]]):,} rows ({scores.rows})" if scores else "",
        comparisons=comparisons,
        hypervolumes=_hypervolumes(manifest, points),
        curve=cascade_curve(folder, profile, loaded) if loaded else None,
        exits=exits(manifest, profile, scores),
        lineage=tuple(lineage_tree({name: manifest.variant(name).lineage for name in names})),
        ports=ports_of(manifest, profile, comparisons),
        exports=read_exports(folder),
        watts_per_core=watts_per_core,
    )


def points_of(manifest: FamilyManifest, profile: FamilyProfile) -> list[ParetoPoint]:
    """Return one point for each variant, fastest first; latency is that of one row of the middle size class."""
    middle = len(manifest.sizes) // 2
    profiled = [variant for variant in manifest.variants if variant.name in profile.variants]
    left_out = not_competing(profiled, manifest.batch_tolerance)
    points = [
        ParetoPoint(
            name=variant.name,
            quality=variant.quality.value,
            latency_s=profile.variants[variant.name].median_s[middle][0],
            size_bytes=variant.size_bytes,
            standard_error=variant.quality.standard_error,
            competes=variant.name not in left_out,
            tail_s=profile.variants[variant.name].tail_s[middle][0],
            memory_bytes=footprint.peak_bytes if (footprint := profile.footprints.get(variant.name)) else 0,
        )
        for variant in profiled
    ]
    return sorted(points, key=lambda point: (point.latency_s, point.name))


def verdict(point: ParetoPoint, found: Frontier) -> str:
    """Say in words where a point stands."""
    if point.name in found.dominated:
        return f"dominated by {found.dominated[point.name]}"
    if not point.competes:
        return "not compared"
    return ", ".join(filter(None, ("on it", found.notes.get(point.name))))


def _line(folder: RevisionFolder, profile: FamilyProfile, point: ParetoPoint, found: Frontier) -> Line:
    variant = folder.manifest.variant(point.name)
    usual = "on the frontier, and no loaded variant is faster, smaller and within one standard error of it"
    return Line(
        variant=variant,
        point=point,
        table=profile.variants[point.name],
        footprint=profile.footprints.get(point.name),
        macs=variant.macs if variant.macs is not None else _counted(folder, variant),
        verdict=verdict(point, found),
        ties=found.tied_with(point.name),
        why=variant.notes or (usual if variant.load_by_default else ""),
        own_bytes=own_bytes(folder.manifest)[point.name],
        logit_difference=_difference(folder.manifest, point.name),
    )


def _difference(manifest: FamilyManifest, variant: str) -> float | None:
    fact = manifest.build.get(f"logit_difference.{variant}")
    return fact if isinstance(fact, float) else None


def _counted(folder: RevisionFolder, variant: VariantManifest) -> int | None:
    """Count the MACs of a variant of an older build; None where the tools of building are not installed."""
    if folder.manifest.parts_of(variant.model_file).files or not variant.model_file.endswith(".onnx"):
        # Builds that share weights count; where they did not, it cannot be done.
        return None
    try:
        from variants.macs import count_macs  # noqa: PLC0415 - needs onnx, which serving machines lack
    except ModuleNotFoundError:
        return None
    preparer = open_preparation(folder)
    samples = folder.samples()
    row = preparer.prepare({tensor.name: samples[tensor.name][:1] for tensor in folder.manifest.inputs}).values[0]
    size = folder.manifest.sizes[len(folder.manifest.sizes) // 2]
    feeds = preparer.collate([row if size == 1 else np.resize(row, size)])
    return count_macs(folder.file(variant.model_file), feeds)


def _comparisons(scores: Scores | None, names: list[str]) -> dict[tuple[str, str], Comparison]:
    if scores is None:
        return {}
    of = scores.of
    return {(first, second): compare(of[first], of[second]) for first in names for second in names if first != second}


def _hypervolumes(manifest: FamilyManifest, points: list[ParetoPoint]) -> dict[str, float]:
    guessing = 1.0 / len(manifest.labels)
    planes = {
        "latency": [(point.latency_s, point.quality) for point in points if point.competes],
        "size": [(float(point.size_bytes), point.quality) for point in points if point.competes],
        "memory": [(float(point.memory_bytes), point.quality) for point in points if point.competes],
    }
    return {
        plane: share_of_the_box(of, guessing) for plane, of in planes.items() if of and all(cost > 0 for cost, _ in of)
    }


def share_of_the_box(points: list[tuple[float, float]], guessing: float, dearest: float | None = None) -> float:
    """Return the hypervolume of points (cost, quality) as a share, in [0, 1], of what perfection at no cost has.

    Costs end a tenth beyond `dearest`, by default the dearest of the points.
    """
    worst = BEYOND_THE_DEAREST * (max(cost for cost, _ in points) if dearest is None else dearest)
    return dominated_area(points, guessing, worst) / ((1.0 - guessing) * worst)
