"""`make protos`: open_inference_pb2.py and open_inference_pb2.pyi from open_inference.proto.

What protoc writes registers its messages in the pool of the process; ours have one of their own (`descriptors`).
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

FOLDER = Path(__file__).parent
PROTO = FOLDER / "open_inference.proto"

_OTHERS = "_descriptor_pool.Default()"
_IMPORT = "from google.protobuf import descriptor_pool as _descriptor_pool\n"


def generated() -> Mapping[str, str]:
    """The contents of the generated files by name. Raises `RuntimeError` where protoc fails or writes something new."""
    from grpc_tools import protoc  # noqa: PLC0415 - of the development tools

    with tempfile.TemporaryDirectory() as folder:
        includes = resources.files("grpc_tools") / "_proto"
        options = [f"-I{FOLDER}", f"-I{includes}", f"--python_out={folder}", f"--pyi_out={folder}"]
        if protoc.main(["protoc", *options, PROTO.name]):
            raise RuntimeError(f"protoc refuses {PROTO.name}")
        contents = {path.name: path.read_text() for path in sorted(Path(folder).iterdir())}
    module = contents["open_inference_pb2.py"]
    if (module.count(_OTHERS), module.count(_IMPORT)) != (1, 1):
        raise RuntimeError("protoc registers messages in another way than this knows")
    module = module.replace(_OTHERS, "_POOL").replace(
        _IMPORT, "from service.rpc.descriptors import POOL as _POOL  # by service/rpc/generate.py\n"
    )
    return {**contents, "open_inference_pb2.py": module}


def main() -> None:
    """Write them."""
    try:
        contents = generated()
    except (ImportError, RuntimeError) as error:
        sys.exit(f"protos: {error}")
    for name, content in contents.items():
        (FOLDER / name).write_text(content)


if __name__ == "__main__":
    main()
