"""How often answers agree with the best variant's, as found after they were given, by variant and by tenant."""

from __future__ import annotations

from collections.abc import Iterator

from router.agreement import Agreement, Reading, Rules, Share, expected_agreement
from router.family import Family


class LiveQuality:
    """Agreement by family and variant, and by family and tenant label: as many series as those have values."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._agreements: dict[tuple[str, str], Agreement] = {}
        self._served: dict[tuple[str, str], Share] = {}
        self.compared: dict[str, int] = {}
        """Answers compared so far, by family."""
        self.skipped: dict[str, int] = {}
        """Answers that were drawn for a comparison for which there was no spare capacity, by family."""

    def compare(self, family: Family, variant: str, agreed: bool, now: float) -> None:
        """The first answer of a row came from this variant, and was that of the family's best one or not.

        First answers, because whether there is another one depends on them: the last answers of a quick variant are
        the sure ones alone, and would agree more often than its evidence says.
        """
        best = family.variants[family.ladder[-1]].name
        reference = (family.revision, best)
        agreement = self._agreements.get((family.name, variant))
        if agreement is None or agreement.reference != reference:
            expected = expected_agreement(family, variant, best)
            agreement = self._agreements[family.name, variant] = Agreement(reference, expected, self._rules)
        elif agreement.expected is None:
            # Under a memory budget evidence is there only while two variants are.
            agreement.expected = expected_agreement(family, variant, best)
        agreement.observe(agreed, now)

    def serve(self, family: str, tenant: str, agreed: bool, now: float) -> None:
        """The answer that a tenant got in the end was that of the best variant or not."""
        share = self._served.get((family, tenant))
        if share is None:
            share = self._served[family, tenant] = Share(self._rules.window_s)
        share.add(int(agreed), 1, now)
        self.compared[family] = self.compared.get(family, 0) + 1

    def skip(self, family: str) -> None:
        """An answer was to be compared, but was not."""
        self.skipped[family] = self.skipped.get(family, 0) + 1

    def variants(self, now: float) -> Iterator[tuple[str, str, Reading]]:
        """Family, variant and how often it agrees."""
        for (family, variant), agreement in list(self._agreements.items()):
            yield family, variant, agreement.reading(now)

    def lost(self, family: Family, now: float) -> dict[str, float]:
        """By how much each variant of this revision that drifts agrees less often than expected, in (0, 1].

        That is what it is believed to be right less often: where it newly differs from the best variant, it is the one
        that is wrong.
        """
        found: dict[str, float] = {}
        for variant in family.variants:
            agreement = self._agreements.get((family.name, variant.name))
            if agreement is None or agreement.reference[0] != family.revision:
                continue
            share, _, _, _, expected, drifts = agreement.reading(now)
            if drifts and expected is not None and share < expected:
                found[variant.name] = expected - share
        return found

    def tenants(self, now: float) -> Iterator[tuple[str, str, Reading]]:
        """Family, tenant label and how often what it was answered agrees."""
        for (family, tenant), share in list(self._served.items()):
            yield family, tenant, share.reading(now)
