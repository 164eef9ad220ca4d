"""onnxruntime's quantization tools, without what they log and print."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back what is printed, and informations and warnings of all loggers, for a while.

    The tools advise on every call, through the root logger, to preprocess the model first, which changes nothing here;
    calibration prints its progress.
    """
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)
