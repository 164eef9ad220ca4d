"""A tokenizer that is opened when it is needed: hundreds of registered families must not hold one each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from variants.manifest import TensorPreparation
from variants.preparation import Answers, Feeds, Preparer, Row, Rows, decode, open_preparation
from variants.repository import RevisionFolder


class LazyPreparer:
    """As the `Preparer` that it opens at its first use. Any thread may use it; what is opened twice is dropped once."""

    def __init__(self, folder: RevisionFolder) -> None:
        self._folder = folder
        self._cheap = isinstance(folder.manifest.preparation, TensorPreparation)
        self._opened: Preparer | None = open_preparation(folder) if self._cheap else None

    @property
    def is_open(self) -> bool:
        """Whether the next call is quick."""
        return self._opened is not None

    def close(self) -> None:
        """Forget the tokenizer until it is needed again."""
        if not self._cheap:
            self._opened = None

    def prepare(self, inputs: Mapping[str, NDArray[Any]], *, known_finite: bool = False) -> Rows:
        """See `variants.preparation.Preparer`."""
        return self._preparer().prepare(inputs, known_finite=known_finite)

    def collate(self, rows: Sequence[Row]) -> Feeds:
        """See `variants.preparation.Preparer`."""
        return self._preparer().collate(rows)

    def decode(self, logits: NDArray[np.float32], temperature: float) -> Answers:
        """See `variants.preparation.Preparer`."""
        return decode(logits, temperature)

    def _preparer(self) -> Preparer:
        opened = self._opened
        if opened is None:
            opened = self._opened = open_preparation(self._folder)
        return opened
