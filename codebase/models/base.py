"""What the models share: networks, the prior N(0, I), and ancestral sampling."""

import importlib
import pkgutil
import types

import torch
from torch import Tensor

from codebase import utils as ut
from codebase.models import nns


class LatentVariableModel(torch.nn.Module):
    """p(z)·p(x|z) with the prior N(0, I), unless a subclass has its own, and an encoder q(z|x).

    nn: str: architecture, the name of a module in `codebase.models.nns`
    name: str: folder of the model's weights in checkpoints/ and of its records in logs/
    z_dim: int: dimensions of the latent variable
    y_dim: int: labels that both networks are given beside x and z; 0 for none

    Raises ValueError where there is no such architecture.
    """

    needs_labels = False  # whether the bounds are given y beside x
    binary = False  # whether its images are binarised

    def __init__(self, nn: str, name: str, z_dim: int, y_dim: int = 0):
        super().__init__()
        self.name, self.z_dim, self.y_dim = name, z_dim, y_dim
        self.enc = architecture(nn).Encoder(z_dim, y_dim)
        self.dec = architecture(nn).Decoder(z_dim, y_dim)
        self.init_prior()

    def init_prior(self) -> None:
        """Create the prior's parameters: N(0, I) has two constants, kept with the weights."""
        self.register_buffer("z_prior_m", torch.zeros(1))
        self.register_buffer("z_prior_v", torch.ones(1))

    @property
    def z_prior(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of p(z), which broadcast to (..., z_dim)."""
        return self.z_prior_m, self.z_prior_v

    def sample_z(self, batch: int) -> Tensor:
        """z ~ p(z): (batch, z_dim)."""
        m, v = (parameter.expand(batch, self.z_dim) for parameter in self.z_prior)
        return ut.sample_gaussian(m, v)

    def compute_mean_given(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """μ(y, z) = E[x|z, y]: z (..., z_dim), one-hot y (..., y_dim) → (..., x_dim)."""
        return self.dec.decode(z, y)

    def infer_latents(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        """What the decoder is given for x: the posterior mean of z, and y where there is one.

        x, y: tensors: (batch, x_dim), (batch, y_dim): images and one-hot labels, which only a model
            whose bounds are given labels looks at
        """
        given = (y,) if self.needs_labels else ()
        return self.enc.encode(x, *given)[0], *given

    def reconstruct(self, x: Tensor, y: Tensor) -> Tensor:
        """E[x|z, y] at the posterior mean of z: see `infer_latents`."""
        return self.compute_mean_given(*self.infer_latents(x, y))


class BernoulliModel(LatentVariableModel):
    """A model of binary images: p(x|z) is a Bernoulli for each pixel."""

    binary = True

    def sample_latents(self, batch: int) -> tuple[Tensor, ...]:
        """One draw from the prior of everything that the decoder is given."""
        return (self.sample_z(batch),)

    def compute_mean_given(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """E[x|z, y], in [0, 1]: z (..., z_dim), one-hot y (..., y_dim) → (..., x_dim)."""
        return self.dec.decode(z, y).sigmoid()

    def compute_sigmoid_given(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """`compute_mean_given`, by the name that it has in the homework."""
        return self.compute_mean_given(z, y)

    def sample_x_given(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """x ~ p(x|z): (..., x_dim)."""
        return torch.bernoulli(self.compute_sigmoid_given(z, y))

    def sample_sigmoid(self, batch: int) -> Tensor:
        """Means of p(x|z) for z ~ p(z): (batch, x_dim)."""
        return self.compute_sigmoid_given(*self.sample_latents(batch))

    def sample_x(self, batch: int) -> Tensor:
        """x ~ p(x): (batch, x_dim)."""
        return self.sample_x_given(*self.sample_latents(batch))


def architecture(nn: str) -> types.ModuleType:
    """The module of an architecture. Raises ValueError where there is none of the name."""
    path = f"{nns.__name__}.{nn}"
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name != path:  # it is there, and imports what is not
            raise
        names = [module.name for module in pkgutil.iter_modules(nns.__path__)]
        raise ValueError(f"no architecture {nn!r} in {nns.__name__}; there is {names}") from None
