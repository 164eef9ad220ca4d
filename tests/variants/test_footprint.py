"""What serving takes is measured in a process that does nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.service.families import write_family
from tests.variants.conftest import save_linear_model
from variants.footprint import FootprintError, measure_footprint
from variants.measurements import ServingFootprint
from variants.repository import Repository, RevisionFolder


def test_a_large_model_takes_what_its_weights_take(tmp_path: Path) -> None:
    """A model of 32 MB takes at least as much resident memory, a small one much less; both cost processor seconds."""
    import onnx

    small = onnx.load(save_linear_model(tmp_path / "small.onnx", np.zeros((4, 2), np.float32)))
    large = onnx.load(save_linear_model(tmp_path / "large.onnx", np.ones((4, 2_000_000), np.float32)))
    write_family(Repository(tmp_path / "models"), "pair", {"small": (small, 0.8), "large": (large, 0.9)})
    folder = Repository(tmp_path / "models").open("pair")
    found = {name: measure_footprint(folder, name) for name in ("small", "large")}
    assert found["large"].loaded_bytes > 30_000_000 > found["small"].peak_bytes
    for footprint in found.values():
        assert footprint.process_peak_bytes > footprint.peak_bytes >= footprint.loaded_bytes
        assert footprint.cpu_s_alone > 0.0 < footprint.cpu_s_batched
        assert (4, 4) == (footprint.batch, footprint.largest_batch)


def test_a_model_that_does_not_open_is_one_line(tiny: RevisionFolder) -> None:
    """What goes wrong in the other process comes back as its last line, with the variant's name."""
    tiny.file("small/model.onnx").write_bytes(b"rubbish")
    with pytest.raises(
        FootprintError, match=r"^small: its footprint could not be measured: .*cannot be opened"
    ) as said:
        measure_footprint(tiny, "small")
    assert "\n" not in str(said.value)


def test_energy_is_seconds_times_watts() -> None:
    """A thousand answers of 2 ms each on a core of 5 W are 10 J; in batches of half the time, 5 J."""
    footprint = ServingFootprint(
        loaded_bytes=1,
        peak_bytes=2,
        process_peak_bytes=3,
        largest_batch=4,
        load_s=0.1,
        cpu_s_alone=0.002,
        cpu_s_batched=0.001,
        batch=4,
    )
    assert pytest.approx((10.0, 5.0)) == footprint.energy_j(5.0)
