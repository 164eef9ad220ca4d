"""Runs in the converters' environment: answers rows one by one through a file for devices, and times it.

`python -m variants.ondevice.measure_tool ORDER.json RESULT.json`, where the order has `file`, `target`, `feeds` (an
.npz with an array [n, ...] for each input, padded to the file's shape) and `inputs`, their names in the graph's order;
logits float32 [n, k] are written to `logits`, an .npy. One thread computes. The result has `seconds`, one for each row,
`load_s`, and `memory_bytes`, what the process gained from before opening to after the last row.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Feeds = Mapping[str, NDArray[Any]]
Run = Callable[[Feeds], NDArray[np.float32]]
Open = Callable[[str, Sequence[str]], Run]

_PASSES = 3
"""Rows are answered so often; the least time of each counts, for the machine may have had other things to do."""


def litert() -> Open:
    """Import LiteRT; return what opens a file of one signature."""
    from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415 - of two runtimes one is wanted

    def opened(file: str, _inputs: Sequence[str]) -> Run:
        interpreter = Interpreter(model_path=file, num_threads=1)
        (name,) = interpreter.get_signature_list()
        runner = interpreter.get_signature_runner(name)
        types = {given: detail["dtype"] for given, detail in runner.get_input_details().items()}

        def run(feeds: Feeds) -> NDArray[np.float32]:
            given = runner(**{name: feeds[name].astype(kind) for name, kind in types.items()})
            logits: NDArray[np.float32] = given["logits"]
            return logits

        return run

    return opened


def executorch() -> Open:
    """Import ExecuTorch; return what opens a program."""
    import torch  # noqa: PLC0415 - of two runtimes one is wanted
    from executorch.extension.pybindings import portable_lib  # noqa: PLC0415 - the same
    from executorch.runtime import Runtime  # noqa: PLC0415 - the same

    portable_lib._unsafe_reset_threadpool(1)  # noqa: SLF001 - there is no other way to say how many threads compute
    runtime = Runtime.get()

    def opened(file: str, inputs: Sequence[str]) -> Run:
        method = runtime.load_program(file).load_method("forward")

        def run(feeds: Feeds) -> NDArray[np.float32]:
            given: NDArray[np.float32] = method.execute([torch.from_numpy(feeds[name]) for name in inputs])[0].numpy()
            return given

        return run

    return opened


RUNTIMES: Mapping[str, Callable[[], Open]] = {"litert": litert, "executorch": executorch}


def main(arguments: Sequence[str]) -> None:
    """Measure."""
    asked, answered = map(Path, arguments)
    order = json.loads(asked.read_text())
    with np.load(order["feeds"], allow_pickle=False) as archive:
        feeds = {name: archive[name] for name in archive.files}
    rows = [
        {name: values[row : row + 1] for name, values in feeds.items()} for row in range(len(feeds[next(iter(feeds))]))
    ]
    opened = RUNTIMES[order["target"]]()
    before_bytes, started_s = _resident_bytes(), time.perf_counter()
    run = opened(order["file"], order["inputs"])
    load_s = time.perf_counter() - started_s
    logits = [np.array(run(row)) for row in rows]
    seconds = np.min([[_seconds(run, row) for row in rows] for _ in range(_PASSES)], axis=0)
    np.save(order["logits"], np.concatenate(logits).astype(np.float32))
    memory_bytes = max(0, _resident_bytes() - before_bytes)
    result = {"seconds": seconds.tolist(), "load_s": load_s, "memory_bytes": memory_bytes}
    answered.write_text(json.dumps(result))


def _seconds(run: Run, row: Feeds) -> float:
    begun_s = time.perf_counter()
    run(row)
    return time.perf_counter() - begun_s


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main(sys.argv[1:])
