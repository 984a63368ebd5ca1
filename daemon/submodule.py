"""A module of a package without all else that the package imports."""

import importlib
import importlib.util
import sys
from types import ModuleType


def import_submodule(package: str, name: str) -> ModuleType:
    """Import ``package.name`` without running the package's ``__init__``; for packages that import far more there.

    While the module is imported, an empty package of the same path stands in its parent's place; a later import of the
    package itself runs it as ever. A package that does not bear this is imported whole.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    full = f"{package}.{name}"
    if full in sys.modules or package in sys.modules:
        return importlib.import_module(full)
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    sys.modules[package] = importlib.util.module_from_spec(spec)
    try:
        return importlib.import_module(full)
    except ImportError:
        whole = True
    finally:
        del sys.modules[package]
    if whole:
        for loaded in [key for key in sys.modules if key.startswith(f"{package}.")]:
            del sys.modules[loaded]
    return importlib.import_module(full)
