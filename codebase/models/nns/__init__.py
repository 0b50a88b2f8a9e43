"""Interchangeable architectures: each has an Encoder and a Decoder, v1 a Classifier too."""

import importlib
import pkgutil
import types


def architecture(name: str) -> types.ModuleType:
    """The module of an architecture, such as v1.

    Raises:
        ValueError: there is no architecture of the name
    """
    path = f"{__name__}.{name}"
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name != path:  # the architecture exists; one of its imports is missing
            raise
        names = [module.name for module in pkgutil.iter_modules(__path__)]
        raise ValueError(f"no architecture {name!r} in {__name__}; there is {names}") from None
