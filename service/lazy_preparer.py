"""A tokenizer that is held while something of its family is in memory, or is asked for: hundreds are registered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.shared_tokenizers import open_shared, warm
from variants.manifest import TensorPreparation
from variants.preparation import Answers, Feeds, Preparer, Row, Rows, decode
from variants.repository import RevisionFolder


class LazyPreparer:
    """As the `Preparer` that it opens at its first use, shared with families that have the same. Any thread may use it.

    Whoever loads a variant opens it before, so that no request does.
    """

    def __init__(self, folder: RevisionFolder) -> None:
        self._folder = folder
        self._cheap = isinstance(folder.manifest.preparation, TensorPreparation)
        self._opened: Preparer | None = open_shared(folder) if self._cheap else None
        self._opening = False

    @property
    def is_open(self) -> bool:
        """Whether the next call is quick."""
        return self._opened is not None

    @property
    def holds_tokenizer(self) -> bool:
        """Whether there is something to close, or will be in a moment."""
        return not self._cheap and (self._opening or self._opened is not None)

    def warm(self) -> bool:
        """Have the library of tokenizers in memory if this has one, and say so: see `service.shared_tokenizers`."""
        if not self._cheap:
            warm(self._folder)
        return not self._cheap

    def open(self) -> Preparer:
        """Hold what prepares the rows from now on. Raises `RepositoryError` where it cannot be read."""
        opened = self._opened
        if opened is None:
            self._opening = True
            try:
                opened = self._opened = open_shared(self._folder)
            finally:
                self._opening = False
        return opened

    def close(self) -> None:
        """Forget the tokenizer until it is needed again."""
        if not self._cheap:
            self._opened = None

    def prepare(self, inputs: Mapping[str, NDArray[Any]], *, known_finite: bool = False) -> Rows:
        """See `variants.preparation.Preparer`."""
        return self.open().prepare(inputs, known_finite=known_finite)

    def collate(self, rows: Sequence[Row]) -> Feeds:
        """See `variants.preparation.Preparer`."""
        return self.open().collate(rows)

    def decode(self, logits: NDArray[np.float32], temperature: float) -> Answers:
        """See `variants.preparation.Preparer`."""
        return decode(logits, temperature)
