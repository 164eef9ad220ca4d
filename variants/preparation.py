"""What happens to a row before and after the model; it travels with the family, so every variant gets the same input.

Names inside the ONNX files: text models take `input_ids` and `attention_mask` (int64 [n, t]), tensor models take the
family's input under its own name (float32 [n, ...]); all give `logits` (float32 [n, k], k labels).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import tokenizers
from numpy.typing import NDArray

from variants.manifest import Preparation, TensorPreparation, TensorSpec, TextPreparation
from variants.repository import RepositoryError, RevisionFolder

INPUT_IDS = "input_ids"
ATTENTION_MASK = "attention_mask"
LOGITS = "logits"

CHARACTERS_PER_TOKEN = 16
"""Of a text no more than this many characters for each token that a row may have are read.

English has 4 to 5 characters a token, so only text with long runs of blanks or unknown words is affected. Without a
bound a text of 1 MB would hold the interpreter lock for 0.4 s; 2,048 characters take 0.6 ms.
"""

Row = NDArray[Any]
Feeds = dict[str, NDArray[Any]]


class InputError(ValueError):
    """The caller's input cannot be prepared. The message is one line that names the input and the row."""


class Rows(NamedTuple):
    """Prepared rows and the size of each in tokens (1 for tensors). Rows of several requests may share a batch."""

    values: list[Row]
    sizes: list[int]


class Answers(NamedTuple):
    """`labels` int64 [n] are indices into the family's labels; `probabilities` float32 [n, k] are calibrated."""

    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    confidences: NDArray[np.float32]
    """The probability of the chosen label, float32 [n]."""


class Preparer(Protocol):
    """Turns inputs into rows, rows into a model's feeds, and logits into answers."""

    def prepare(self, inputs: Mapping[str, NDArray[Any]], *, known_finite: bool = False) -> Rows:
        """Check and prepare the rows of one request; numbers need no check where the caller knows them to be finite.

        Raises `InputError`.
        """

    def collate(self, rows: Sequence[Row]) -> Feeds:
        """Join at least one prepared row into the feeds of one batch, text padded to the longest row."""

    def decode(self, logits: NDArray[np.float32], temperature: float) -> Answers:
        """Return labels and calibrated probabilities for logits float32 [n, k]."""


def decode(logits: NDArray[np.float32], temperature: float) -> Answers:
    """Return the likeliest label of each row and the softmax of `logits / temperature`.

    Temperature scaling: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
    """
    # The ufuncs themselves: `max` and `sum` of an array take a way through Python, which a lone row pays for.
    shifted = logits - np.maximum.reduce(logits, axis=1, keepdims=True)
    shifted /= np.float32(temperature)
    np.exp(shifted, out=shifted)
    total: NDArray[np.float32] = np.add.reduce(shifted, axis=1, keepdims=True)
    shifted /= total
    labels = logits.argmax(axis=1)
    # The likeliest label has the largest logit, whose shifted exponential is 1 before it is divided by the sum.
    return Answers(labels, shifted, 1.0 / total[:, 0])


class TensorPreparer:
    """Numbers of a fixed shape: cast to float32 and scaled. A row is float32 [1, ...]."""

    def __init__(self, preparation: TensorPreparation, tensor: TensorSpec) -> None:
        self._name = tensor.name
        self._row_shape = tensor.shape[1:]
        self._mean = np.float32(preparation.mean)
        self._scale = np.float32(preparation.scale)
        self._as_given = preparation.mean == 0.0 and preparation.scale == 1.0

    def prepare(self, inputs: Mapping[str, NDArray[Any]], *, known_finite: bool = False) -> Rows:
        """Return float32 rows for numbers [n, ...]. Raises `InputError`: wrong shape or type, no rows, not finite."""
        given = _only_input(inputs, self._name)
        if given.shape[1:] != self._row_shape or given.ndim == 0 or given.shape[0] == 0:
            expected = ["at least 1", *self._row_shape]
            raise InputError(f"input {self._name!r}: expected shape {expected}, got {list(given.shape)}")
        if given.dtype == np.float32:
            values = given
        elif given.dtype.kind in "biuf":
            with np.errstate(over="ignore"):
                values = given.astype(np.float32)
        else:
            raise InputError(f"input {self._name!r}: expected numbers, got {given.dtype}")
        if not (known_finite and values is given) and not np.isfinite(values).all():
            row = int(np.argmin(np.isfinite(values).reshape(len(values), -1).all(axis=1)))
            raise InputError(f"input {self._name!r}: row {row} holds a value that is not a finite 32-bit float")
        if not self._as_given:
            values = (values - self._mean) / self._scale
        count = len(values)
        if count == 1:
            return Rows([values], [1])
        return Rows([values[row : row + 1] for row in range(count)], [1] * count)

    def collate(self, rows: Sequence[Row]) -> Feeds:
        """Return the rows as one float32 tensor under the input's name."""
        return {self._name: rows[0] if len(rows) == 1 else np.concatenate(rows)}

    def decode(self, logits: NDArray[np.float32], temperature: float) -> Answers:
        """Return labels and calibrated probabilities, as `decode` does."""
        return decode(logits, temperature)


class TextPreparer:
    """UTF-8 text, cut into WordPiece tokens. A row is int64 [t], its token ids without padding."""

    def __init__(self, preparation: TextPreparation, tensor: TensorSpec, tokenizer: tokenizers.Tokenizer) -> None:
        self._name = tensor.name
        self._max_characters = preparation.max_tokens * CHARACTERS_PER_TOKEN
        self._padding_id = (tokenizer.padding or {}).get("pad_id", 0)
        tokenizer.no_padding()
        tokenizer.enable_truncation(preparation.max_tokens)
        self._tokenizer = tokenizer

    def prepare(self, inputs: Mapping[str, NDArray[Any]], *, known_finite: bool = False) -> Rows:
        """Return token ids for UTF-8 bytes or `str`, [n] or [n, 1]. Raises `InputError`: wrong shape, not text."""
        given = _only_input(inputs, self._name)
        if given.ndim not in (1, 2) or given.shape[1:] not in ((), (1,)) or given.shape[0] == 0:
            raise InputError(f"input {self._name!r}: expected shape ['at least 1'], got {list(given.shape)}")
        texts = [self._text(row, value) for row, value in enumerate(given.reshape(-1).tolist())]
        encode = self._tokenizer.encode
        values = [np.array(encode(text).ids, dtype=np.int64) for text in texts]
        return Rows(values, [len(value) for value in values])

    def collate(self, rows: Sequence[Row]) -> Feeds:
        """Return `input_ids` and `attention_mask`, int64 [n, longest]."""
        if len(rows) == 1:
            ids = rows[0][np.newaxis]
            return {INPUT_IDS: ids, ATTENTION_MASK: np.ones_like(ids)}
        longest = max(map(len, rows))
        ids = np.full((len(rows), longest), self._padding_id, dtype=np.int64)
        mask = np.zeros((len(rows), longest), dtype=np.int64)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row
            mask[index, : len(row)] = 1
        return {INPUT_IDS: ids, ATTENTION_MASK: mask}

    def decode(self, logits: NDArray[np.float32], temperature: float) -> Answers:
        """Return labels and calibrated probabilities, as `decode` does."""
        return decode(logits, temperature)

    def _text(self, row: int, value: object) -> str:
        if isinstance(value, bytes):
            try:
                return value.decode()[: self._max_characters]
            except UnicodeDecodeError as error:
                bad = f"byte 0x{value[error.start]:02x} at offset {error.start}"
                raise InputError(f"input {self._name!r}: row {row} is not valid UTF-8 ({bad})") from None
        if isinstance(value, str):
            return value[: self._max_characters]
        raise InputError(f"input {self._name!r}: row {row} is {type(value).__name__}, expected text")


def _only_input(inputs: Mapping[str, NDArray[Any]], name: str) -> NDArray[Any]:
    given = inputs.get(name)
    if given is None:
        raise InputError(f"input {name!r} is missing, got {sorted(inputs)}")
    if len(inputs) > 1:
        unknown = min(set(inputs) - {name})
        raise InputError(f"input {unknown!r} is unknown, expected {name!r}")
    return given


def open_preparation(folder: RevisionFolder) -> Preparer:
    """Return what prepares the rows of a revision. Raises `RepositoryError` where its tokenizer cannot be read."""
    (tensor,) = folder.manifest.inputs
    return preparer_for(folder.manifest.preparation, tensor, folder.file)


def preparer_for(preparation: Preparation, tensor: TensorSpec, file: Callable[[str], Path]) -> Preparer:
    """Return what prepares rows for that input; `file` says where a shared file is. Raises `RepositoryError`."""
    if isinstance(preparation, TensorPreparation):
        return TensorPreparer(preparation, tensor)
    path = file(preparation.tokenizer_file)
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the tokenizers library raises bare Exception
        raise RepositoryError(f"{path}: cannot be read as a tokenizer: {' '.join(str(error).split())}") from error
    return TextPreparer(preparation, tensor, tokenizer)
