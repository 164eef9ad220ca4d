"""Fashion-MNIST out of Debian's package: 70,000 pictures of clothes, 28x28 grey values, ten kinds of equal number.

Xiao, Rasul and Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms", 2017.
The 60,000 rows to learn from are cut into train and validation; the 10,000 of the paper's test part stay the test part.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from variants.debian import DebianPackage, fetch_package, read_package
from variants.spec import BuildError, Dataset, LabelledRows

INPUT = "image"
# By their numbers in the files; unformatted, because one a line would be a page.
LABELS = (
    "t-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
PACKAGE = DebianPackage(
    name="dataset-fashion-mnist",
    version="0.0~git20200523.55506a9-1",
    pool_path="main/d/dataset-fashion-mnist/dataset-fashion-mnist_0.0~git20200523.55506a9-1_all.deb",
    sha256="39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
)
VALIDATION_ROWS = 5000

_PARTS = ("train", "t10k")


def fashion_mnist(cache: Path, seed: int) -> Dataset:
    """Return uint8 images [n, 28, 28] with their labels: 55,000 to learn from, 5,000 to validate on, 10,000 to test.

    The seed decides which rows validate. Raises `BuildError` where the package cannot be had or read.
    """
    names = [f"{part}-{kind}-ubyte.gz" for part in _PARTS for kind in ("images-idx3", "labels-idx1")]
    files = read_package(fetch_package(PACKAGE, cache), names)
    learnt, test = (
        LabelledRows(
            {INPUT: read_idx(files[f"{part}-images-idx3-ubyte.gz"])},
            read_idx(files[f"{part}-labels-idx1-ubyte.gz"]).astype(np.int64),
        )
        for part in _PARTS
    )
    order = np.random.default_rng(seed).permutation(len(learnt))
    return Dataset(learnt.take(order[VALIDATION_ROWS:]), learnt.take(order[:VALIDATION_ROWS]), test)


def read_idx(compressed: bytes) -> NDArray[np.uint8]:
    """Return the array of a gzipped IDX file of bytes, the format of MNIST. Raises `BuildError` where it is none.

    Two zero bytes, 8 for unsigned bytes, the number of dimensions, each of them as a big-endian int32, the values.
    """
    try:
        content = gzip.decompress(compressed)
        shape = tuple(np.frombuffer(content, ">i4", count=content[3], offset=4).tolist())
        values = np.frombuffer(content, np.uint8, offset=4 + 4 * content[3])
        if content[:3] != b"\0\0\x08":
            raise ValueError("its magic number is not that of bytes")
        return values.reshape(shape)
    except (OSError, EOFError, IndexError, ValueError) as error:
        raise BuildError(f"the data is no gzipped IDX file of bytes: {error}") from error
