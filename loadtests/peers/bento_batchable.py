"""Peer (b): stock BentoML with adaptive batching (`batchable=True`), as its documentation shows it.

Run: `bentoml serve loadtests.peers.bento_batchable:Batchable` with the variables of `loadtests.peers.model`.
"""

from __future__ import annotations

import bentoml
import numpy as np

from loadtests.peers.model import open_peer_model
from variants.preparation import LOGITS


@bentoml.service(name="batchable", workers=1)
class Batchable:
    """One model behind one batching endpoint."""

    def __init__(self) -> None:
        self.model = open_peer_model()
        self.input_name = self.model.family.inputs[0].name

    @bentoml.api(batchable=True, max_batch_size=32)  # type: ignore[untyped-decorator]  # BentoML's own types fail here
    def predict(self, rows: np.ndarray) -> np.ndarray:
        """Calibrated probabilities [n, k] of rows [n, ...]."""
        prepared = self.model.preparer.prepare({self.input_name: rows.astype(np.float32)})
        logits = self.model.session.run(self.model.preparer.collate(prepared.values))[LOGITS]
        return self.model.preparer.decode(logits, self.model.variant.temperature).probabilities
