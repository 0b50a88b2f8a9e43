"""The variational autoencoder (Kingma & Welling 2014) and its importance-weighted bound."""

import torch
from torch import Tensor

from codebase import utils as ut
from codebase.models.base import BernoulliModel

# Rows that the importance-weighted bound decodes at once: what bounds its memory, whatever the
# number of weights. 100 images at IWAE-1000 are 100,000 rows.
MAX_ROWS = 5000


class VAE(BernoulliModel):
    """p(z) = N(0, I), p(x|z) Bernoulli, q(z|x) = N(m(x), diag v(x)).

    nn, name, z_dim: see `LatentVariableModel`
    """

    def __init__(self, nn: str = "v1", name: str = "vae", z_dim: int = 2):
        super().__init__(nn, name, z_dim)

    def negative_elbo_bound(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """−ELBO(x) = KL(q(z|x) ‖ p(z)) − E_q[log p(x|z)] (Kingma & Welling 2014, eq. 3).

        x: tensor: (batch, x_dim): images

        Returns (nelbo, kl, rec), nats, means over the batch, with one draw of z for each image.
        """
        q_m, q_v = self.enc.encode(x)
        z = ut.sample_gaussian(q_m, q_v)
        kl = self.kl_to_prior(z, q_m, q_v).mean()
        rec = -self.log_p_x_given(x, z).mean()
        return kl + rec, kl, rec

    def negative_iwae_bound(self, x: Tensor, iw: int) -> tuple[Tensor, Tensor, Tensor]:
        """−log (1/iw) Σ_i p(x, z_i)/q(z_i|x), z_i ~ q(z|x) (Burda et al. 2016, eq. 8).

        x: tensor: (batch, x_dim): images
        iw: int: number of importance weights

        Returns (niwae, kl, rec), nats, means over the batch; kl and rec are the means of the
        sampled terms, log q(z|x) − log p(z) and −log p(x|z). Raises ValueError for iw below 1.
        """
        q_m, q_v = self.enc.encode(x)
        rows = ut.duplicate(torch.arange(len(x), device=x.device), iw)
        z = ut.sample_gaussian(q_m[rows], q_v[rows])
        kl, rec = [], []
        for z_i, i in zip(z.split(MAX_ROWS), rows.split(MAX_ROWS), strict=True):
            kl.append(ut.log_normal(z_i, q_m[i], q_v[i]) - self.log_p_z(z_i))
            rec.append(-self.log_p_x_given(x[i], z_i))
        kl, rec = torch.cat(kl), torch.cat(rec)
        log_weights = -(kl + rec).view(iw, len(x))
        niwae = -ut.log_mean_exp(log_weights, dim=0).mean()
        return niwae, kl.mean(), rec.mean()

    def loss(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The negative ELBO, and the scalars to record: x (batch, x_dim) → (loss, summaries)."""
        nelbo, kl, rec = self.negative_elbo_bound(x)
        return nelbo, {"train/loss": nelbo, "gen/elbo": -nelbo, "gen/kl_z": kl, "gen/rec": rec}

    def kl_to_prior(self, z: Tensor, q_m: Tensor, q_v: Tensor) -> Tensor:
        """KL(q(z|x) ‖ p(z)), in closed form: (batch,)."""
        return ut.kl_normal(q_m, q_v, *self.z_prior)

    def log_p_z(self, z: Tensor) -> Tensor:
        """log p(z): (batch, z_dim) → (batch,)."""
        return ut.log_normal(z, *self.z_prior)

    def log_p_x_given(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x|z): (batch, x_dim), (batch, z_dim) → (batch,)."""
        return ut.log_bernoulli_with_logits(x, self.dec.decode(z))
