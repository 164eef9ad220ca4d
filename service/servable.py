"""Which of the wanted variants of a family can be served under a budget."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from service.footprint import Footprint
from service.loading import choose_variants
from service.log_words import REFUSED
from variants.repository import RepositoryError, RevisionFolder

logger = logging.getLogger("pareto.loading")


def servable(
    folder: RevisionFolder, wanted: Sequence[str] | None, footprint: Footprint
) -> tuple[Sequence[str] | None, dict[str, str]]:
    """The wanted variants that can be served under a budget, and why each of the others cannot.

    Raises `RepositoryError` for a wanted one that does not exist, and where none is left.
    """
    name = folder.manifest.name
    chosen = choose_variants(folder.manifest, wanted)
    lacking = {variant.name: lack for variant in chosen if (lack := footprint.lack(variant))}
    if not lacking:
        return wanted, {}
    for variant, lack in lacking.items():
        logger.error(REFUSED, name, variant, lack)
    if len(lacking) == len(chosen):
        raise RepositoryError(f"family {name}: none of its variants can be loaded ({'; '.join(lacking.values())})")
    return [variant.name for variant in chosen if variant.name not in lacking], lacking
