"""Whether a family can answer what a request asks for: the variant that it pins, and the floor that it sets."""

from __future__ import annotations

from service.loaded_family import LoadedFamily
from service.oip.errors import ProtocolError, malformed


def check_variant(loaded: LoadedFamily, variant: str) -> None:
    """Check that a variant can be pinned. Raises `ProtocolError` 404 saying why it cannot."""
    if variant not in loaded.refused and loaded.family.index(variant) is not None:
        return
    known = {v.name for v in loaded.manifest.variants}
    served = f"served are {', '.join(v.name for v in loaded.family.variants if v.name not in loaded.refused)}"
    if variant in loaded.refused:
        fault = loaded.refused[variant]
        raise ProtocolError(404, f"version {variant!r} of {loaded.name} is refused: {fault}; {served}")
    if variant in known:
        raise ProtocolError(404, f"version {variant!r} of {loaded.name} is not loaded; {served}")
    raise ProtocolError(404, f"version {variant[:80]!r} of {loaded.name} not found; {served}")


def check_request(loaded: LoadedFamily, variant: str | None, floor: float, floor_by: str = "min_accuracy") -> None:
    """Raise `ProtocolError` 404 for a pinned variant that is not there, 400 for a floor that it, or every one, misses.

    `floor` is a fraction in [0, 1], which was set by what `floor_by` names.
    """
    if variant is not None:
        check_variant(loaded, variant)
    if floor <= 0.0:
        return
    family = loaded.family
    index = family.rungs[-1] if variant is None else family.index(variant)
    assert index is not None, "the pinned variant is loaded"
    best = family.variants[index]
    if floor > best.quality:
        whose = f"the best of {loaded.name}" if variant is None else f"that of {variant}"
        raise malformed(floor_by, f"at most {best.quality:.4f}, {whose}", f"{floor:g}")


def can_answer(loaded: LoadedFamily, variant: str | None, floor: float) -> bool:
    """Whether `check_request` has nothing to say."""
    try:
        check_request(loaded, variant, floor)
    except ProtocolError:
        return False
    return True


def has_in_memory(loaded: LoadedFamily, variant: str | None, floor: float) -> bool:
    """Whether the pinned variant, or one that reaches the floor, is in memory now."""
    if variant is not None:
        return variant in loaded.paths
    variants = loaded.family.variants
    return any(variants[rung].name in loaded.paths and variants[rung].quality >= floor for rung in loaded.family.rungs)
