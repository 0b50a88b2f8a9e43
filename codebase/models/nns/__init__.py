"""Interchangeable architectures: each has an Encoder and a Decoder; v1 also has a Classifier."""

import importlib
import pkgutil
import types


def architecture(name: str) -> types.ModuleType:
    """Return the module of an architecture, such as v1.

    Raises:
        ValueError: there is no architecture of that name
    """
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    if name not in names:
        raise ValueError(f"no architecture {name!r:.40} in {__name__}, expected one of {names}")
    return importlib.import_module(f"{__name__}.{name}")
