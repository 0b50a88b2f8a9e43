"""The VAE whose prior is a trained mixture of Gaussians."""

import math

import torch
from torch import Tensor

from codebase import utils as ut
from codebase.models.vae import VAE


class GMVAE(VAE):
    """p(z) = (1/k) Σ_i N(μ_i, diag σ²_i) with trained μ, σ²; otherwise the VAE.

    Args:
        nn, z_dim, name: see `VAE`
        k: int: number of mixture components
        options: the other arguments of `VAE`
    """

    pi: Tensor

    def __init__(
        self, nn: str = "v1", z_dim: int = 2, k: int = 500, name: str = "gmvae", **options
    ):
        self.k = k  # before the rest, which includes the prior
        super().__init__(nn, name, z_dim, **options)

    def init_prior(self) -> None:
        """Create pi, and z_pre: the components' means, then their variances before softplus."""
        scale = math.sqrt(self.k * self.z_dim)
        self.z_pre = torch.nn.Parameter(torch.randn(1, 2 * self.k, self.z_dim) / scale)
        self.register_buffer("pi", torch.ones(self.k) / self.k)

    @property
    def z_prior(self) -> tuple[Tensor, Tensor]:
        """Return means and variances of the components of p(z), each (1, k, z_dim)."""
        return ut.gaussian_parameters(self.z_pre, dim=1)

    def sample_z(self, batch: int) -> Tensor:
        """Draw z ~ p(z): (batch, z_dim). Each z comes from a randomly drawn component."""
        component = torch.distributions.Categorical(self.pi).sample((batch,))
        m, v = self.z_prior
        return ut.sample_gaussian(m[0, component], v[0, component])

    def log_p_z(self, z: Tensor) -> Tensor:
        """Return log p(z), nats: (batch, z_dim) → (batch,)."""
        return ut.log_normal_mixture(z, *self.z_prior)

    def kl_to_prior(self, z: Tensor, q_m: Tensor, q_v: Tensor) -> Tensor:
        """Return log q(z|x) − log p(z) at the draw z, since KL to a mixture has no closed form."""
        return self.log_q(z, q_m, q_v) - self.log_p_z(z)
