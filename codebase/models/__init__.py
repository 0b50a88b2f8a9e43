"""Four variational autoencoders, one a file, and the architectures that they are built of.

`from codebase.models import VAE, GMVAE, SSVAE, FSVAE` imports the files of those alone.
"""

import importlib

_FILES = {"VAE": "vae", "GMVAE": "gmvae", "SSVAE": "ssvae", "FSVAE": "fsvae"}


def __getattr__(name: str):
    if name in _FILES:
        return getattr(importlib.import_module(f"{__name__}.{_FILES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_FILES])
