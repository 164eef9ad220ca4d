"""The families that come with the gateway, and how a family of one's own is loaded."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path

from variants.spec import BuildError, FamilySpec

# libgomp reads this once, when torch is loaded, which families do. Its threads otherwise spin at every barrier; where
# the cores are shared with other work that made a training step ten times longer.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

BUILT_IN = {
    "digits": "variants.families.digits",
    "fashion": "variants.families.fashion",
    "sentiment": "variants.families.sentiment",
    "sentiment-deep": "variants.families.sentiment.deep",
    "vision": "variants.families.vision",
}


def check_family(name_or_path: str) -> None:
    """Raise `BuildError` where there is no such built-in family and no such file; nothing is loaded."""
    if name_or_path in BUILT_IN:
        return
    known = ", ".join(BUILT_IN)
    if not name_or_path.endswith(".py"):
        raise BuildError(f"{name_or_path!r} is not a family: give the path of a .py file or one of {known}")
    path = Path(name_or_path).resolve()
    if not path.is_file():
        raise BuildError(f"{path}: no such file; give the path of a family spec or one of {known}")


def load_family(name_or_path: str) -> FamilySpec:
    """Return the `FAMILY` of a built-in family or of a Python file, which may import modules beside it.

    Raises `BuildError` where there is none.
    """
    check_family(name_or_path)
    if name_or_path in BUILT_IN:
        module = importlib.import_module(BUILT_IN[name_or_path])
    else:
        path = Path(name_or_path).resolve()
        name = f"family_{path.stem}"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None, "it ends in .py"
        assert spec.loader is not None, "likewise"
        module = importlib.util.module_from_spec(spec)
        # Dataclasses look their module up by name while their class is made.
        sys.modules[name] = module
        # A family may import what lies beside it, as any program may; last, so that it shadows nothing.
        if str(path.parent) not in sys.path:
            sys.path.append(str(path.parent))
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise BuildError(f"{path}: cannot be imported: {type(error).__name__}: {reason}") from error
    family = getattr(module, "FAMILY", None)
    if not isinstance(family, FamilySpec):
        raise BuildError(f"{module.__file__}: has no FAMILY = FamilySpec(...) at its top level")
    return family
