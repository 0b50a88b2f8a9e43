"""Variational autoencoders, one per file, and the architectures that they are built of.

`from codebase.models import VAE, GMVAE, SSVAE, FSVAE` imports only these models' files.
"""

import importlib

CLASSES = {  # by their files; run.json names the class
    "VAE": "vae",
    "LaplaceVAE": "laplace_vae",
    "GMVAE": "gmvae",
    "SSVAE": "ssvae",
    "FSVAE": "fsvae",
}


_FILES = CLASSES | {"pixel_likelihood": "likelihoods"}


def __getattr__(name: str):
    if name in _FILES:
        return getattr(importlib.import_module(f"{__name__}.{_FILES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_FILES])


def build(name: str, description: dict):
    """Build a model with initial weights, which torch's generator draws.

    Args:
        name: str: the model's name
        description: what `describe` of such a model returns

    Raises:
        ValueError: there is no such model
    """
    from codebase.models.likelihoods import likelihood

    arguments = dict(description)
    kind = arguments.pop("class", None)
    if not isinstance(kind, str) or kind not in CLASSES:
        raise ValueError(f"class is {kind!r:.40}, expected one of {', '.join(CLASSES)}")
    try:
        if "likelihood" in arguments:
            arguments["likelihood"] = likelihood(arguments["likelihood"])
        return __getattr__(kind)(name=name, **arguments)
    except (TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(f"it is not a {kind}: {error}") from None
