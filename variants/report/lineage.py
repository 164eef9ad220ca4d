"""Where variants come from, as one tree: steps that several have in common are told once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class Step:
    """One step of a lineage, the variants that end with it, and what was done next."""

    name: str
    variants: list[str] = field(default_factory=list)
    next: list[Step] = field(default_factory=list)


def lineage_tree(lineages: Mapping[str, tuple[str, ...]]) -> list[Step]:
    """Return the first steps of the variants' lineages (oldest step first), joined as far as they are the same."""
    root = Step("")
    for variant, lineage in lineages.items():
        at = root
        for name in lineage or ("origin not recorded",):
            known = next((step for step in at.next if step.name == name), None)
            if known is None:
                known = Step(name)
                at.next.append(known)
            at = known
        at.variants.append(variant)
    return root.next
