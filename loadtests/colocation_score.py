"""How well each of many families was answered, and how evenly. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router.fairness import jain


@dataclass(frozen=True, slots=True)
class Shared:
    """Attainment and effective accuracy of each family, float64 [families]; not-a-number where nobody asked.

    Shares are of all requests for the family: answered in time, and answered in time and right.
    """

    requests: NDArray[np.int64]
    attainment: NDArray[np.float64]
    effective: NDArray[np.float64]

    @classmethod
    def of(cls, member: NDArray[np.int64], met: NDArray[np.bool_], right: NDArray[np.bool_], count: int) -> Shared:
        """From one entry a request: its family's index, whether it was answered in time, whether rightly."""
        requests = np.bincount(member, minlength=count)
        with np.errstate(invalid="ignore"):
            attainment = np.bincount(member, met, minlength=count) / requests
            effective = np.bincount(member, met & right, minlength=count) / requests
        return cls(requests, attainment, effective)

    @property
    def overall(self) -> tuple[float, float]:
        """Attainment and effective accuracy of all requests."""
        known, total = self.requests > 0, self.requests.sum()
        weights = self.requests[known] / total
        return float(weights @ self.attainment[known]), float(weights @ self.effective[known])

    @property
    def mean(self) -> float:
        """Mean attainment of the families, each counting alike."""
        return float(np.nanmean(self.attainment))

    @property
    def least(self) -> float:
        """Attainment of the family that fared worst."""
        return float(np.nanmin(self.attainment))

    @property
    def jain(self) -> float:
        """Jain's index of the families' attainment: 1 where all fared alike."""
        return jain(self.attainment[~np.isnan(self.attainment)].tolist())
