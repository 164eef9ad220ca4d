"""Weights from a codebook: centroids of k-means, and constants of any shape that take their values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from tests.variants.graphs import logits, normal, save_cnn, save_graph
from variants.recipes.artifact import Artifact
from variants.recipes.codebook import clustered, k_means, nearest

IMAGES = normal(24, 1, 8, 8, seed=9)


def test_clustered_convolutions_and_odd_sizes(tmp_path: Path) -> None:
    """Constants of any rank and of an odd number of weights come back in their shape, with 16 values at most."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["logits"])]
    source = save_graph(tmp_path / "odd.onnx", nodes, {"w": normal(405, 3)}, x=("n", 405), outputs={"logits": ("n", 3)})
    made = clustered(source, tmp_path / "made.onnx", bits=4)
    columns = logits(made, np.eye(405, dtype=np.float32))
    assert 405 * 3 % 2 == 1
    assert 16 >= len(np.unique(columns))
    assert np.abs(columns - normal(405, 3)).max() < 0.6
    images = clustered(save_cnn(tmp_path / "cnn.onnx"), tmp_path / "images.onnx")
    assert np.abs(logits(images, IMAGES) - logits(Artifact(tmp_path / "cnn.onnx", "", (), 0), IMAGES)).max() < 0.02


@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=60), st.sampled_from([2, 4, 16]))
def test_k_means_is_no_worse_than_where_it_starts(numbers: list[float], clusters: int) -> None:
    """Centroids ascend, values go to the nearest, and the squared error is at most that of evenly spaced centroids."""
    values = np.array(numbers, dtype=np.float32)
    centroids = k_means(values, clusters)
    even = np.linspace(values.min(), values.max(), clusters)
    assert (np.diff(centroids) >= 0).all()
    distance = np.abs(values - centroids[nearest(values, centroids)])
    np.testing.assert_allclose(distance, np.abs(values[:, None] - centroids).min(axis=1), atol=1e-4)
    error = float((distance.astype(np.float64) ** 2).sum())
    assert error <= float(((values[:, None] - even) ** 2).min(axis=1).sum()) + 1e-3


def test_k_means_finds_what_there_is() -> None:
    """Numbers that lie in as many heaps as there are centroids end with one centroid at the mean of each."""
    values = np.array([0.0, 0.2, 5.0, 5.2, 9.8, 10.0], dtype=np.float32)
    np.testing.assert_allclose(k_means(values, 3), [0.1, 5.1, 9.9], atol=1e-6)
