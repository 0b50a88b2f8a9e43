"""The VAE with Laplace distributions in the place of Gaussians over z."""

from torch import Tensor

from codebase import utils as ut
from codebase.models.vae import VAE


class LaplaceVAE(VAE):
    """p(z) = Laplace(0, 1) and q(z|x) = Laplace(m(x), b(x)) in each dimension; otherwise the VAE.

    What the encoder and the prior call variances are scales here.
    """

    def sample_z(self, batch: int) -> Tensor:
        """z ~ p(z): (batch, z_dim)."""
        m, b = (parameter.expand(batch, self.z_dim) for parameter in self.z_prior)
        return ut.sample_laplace(m, b)

    def sample_q(self, q_m: Tensor, q_b: Tensor) -> Tensor:
        return ut.sample_laplace(q_m, q_b)

    def log_q(self, z: Tensor, q_m: Tensor, q_b: Tensor) -> Tensor:
        return ut.log_laplace(z, q_m, q_b)

    def kl_to_prior(self, z: Tensor, q_m: Tensor, q_b: Tensor) -> Tensor:
        return ut.kl_laplace(q_m, q_b, *self.z_prior)

    def log_p_z(self, z: Tensor) -> Tensor:
        return ut.log_laplace(z, *self.z_prior)
