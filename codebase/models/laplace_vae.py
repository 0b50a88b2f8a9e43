"""The VAE with Laplace distributions instead of Gaussians over z."""

from torch import Tensor

from codebase import utils as ut
from codebase.models.vae import VAE


class LaplaceVAE(VAE):
    """p(z) = Laplace(0, 1) and q(z|x) = Laplace(m(x), b(x)) in each dimension; otherwise the VAE.

    A scale b replaces the VAE's variance v, both in the prior and in the encoder's output.
    """

    family = "laplace"

    def sample_z(self, batch: int) -> Tensor:
        """Draw z ~ p(z): (batch, z_dim)."""
        m, b = (parameter.expand(batch, self.z_dim) for parameter in self.z_prior)
        return ut.sample_laplace(m, b)

    def log_p_z(self, z: Tensor) -> Tensor:
        """Return log p(z), nats: (batch, z_dim) → (batch,)."""
        return ut.log_laplace(z, *self.z_prior)

    def sample_q(self, q_m: Tensor, q_b: Tensor) -> Tensor:
        """Draw z ~ q(z|x): (batch, z_dim)."""
        return ut.sample_laplace(q_m, q_b)

    def log_q(self, z: Tensor, q_m: Tensor, q_b: Tensor) -> Tensor:
        """Return log q(z|x), nats: (batch,)."""
        return ut.log_laplace(z, q_m, q_b)

    def kl_to_prior(self, z: Tensor, q_m: Tensor, q_b: Tensor) -> Tensor:
        """Return KL(q(z|x) ‖ p(z)), nats, in closed form: (batch,)."""
        return ut.kl_laplace(q_m, q_b, *self.z_prior)
