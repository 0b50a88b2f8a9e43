"""Variational autoencoders, one per file, and their architectures."""

from collections.abc import Mapping

from codebase.models.base import LatentVariableModel
from codebase.models.fsvae import FSVAE
from codebase.models.gmvae import GMVAE
from codebase.models.laplace_vae import LaplaceVAE
from codebase.models.likelihoods import likelihood, pixel_likelihood
from codebase.models.ssvae import SSVAE
from codebase.models.vae import VAE

__all__ = ["FSVAE", "GMVAE", "SSVAE", "VAE", "LaplaceVAE", "build", "pixel_likelihood"]
CLASSES = {kind.__name__: kind for kind in (VAE, LaplaceVAE, GMVAE, SSVAE, FSVAE)}


def build(description: Mapping, name: str) -> LatentVariableModel:
    """Build a model, with initial weights drawn from torch's generator.

    Args:
        description: class and arguments, as in run.json, such as {"class": "VAE",
            "z_dim": 10, "likelihood": "bernoulli"}
        name: str: the model's name
    """
    arguments = dict(description)
    kind = CLASSES[arguments.pop("class")]
    if "likelihood" in arguments:
        arguments["likelihood"] = likelihood(arguments["likelihood"])
    return kind(name=name, **arguments)
