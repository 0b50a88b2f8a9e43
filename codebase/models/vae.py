"""The variational autoencoder (Kingma & Welling 2014) and its importance-weighted bound."""

import numbers

import torch
from torch import Tensor

from codebase import utils as ut
from codebase.models.base import LatentVariableModel
from codebase.models.likelihoods import BERNOULLI, Bernoulli, Gaussian

# Rows that the importance-weighted bound decodes at once, which limits its memory without
# gradients. 100 images at IWAE-1000 are 100,000 rows.
MAX_ROWS = 5000


class VAE(LatentVariableModel):
    """p(z) = N(0, I), p(x|z) Bernoulli or Gaussian, q(z|x) = N(m(x), diag v(x)).

    Args:
        nn, name, z_dim: see `LatentVariableModel`
        likelihood: p(x|z): Bernoulli for binary images, Gaussian for grey levels
        beta: float: weight of KL in the loss (Higgins et al. 2017); the bounds do not use it
    """

    def __init__(
        self,
        nn: str = "v1",
        name: str = "vae",
        z_dim: int = 2,
        likelihood: Bernoulli | Gaussian = BERNOULLI,
        beta: float = 1,
    ):
        super().__init__(nn, name, z_dim, likelihood=likelihood)
        self.beta = beta

    # p(z)

    def log_p_z(self, z: Tensor) -> Tensor:
        """Return log p(z), nats: (batch, z_dim) → (batch,)."""
        return ut.log_normal(z, *self.z_prior)

    # q(z|x)

    def sample_q(self, q_m: Tensor, q_v: Tensor) -> Tensor:
        """Draw z ~ q(z|x): (batch, z_dim)."""
        return ut.sample_gaussian(q_m, q_v)

    def log_q(self, z: Tensor, q_m: Tensor, q_v: Tensor) -> Tensor:
        """Return log q(z|x), nats: (batch,)."""
        return ut.log_normal(z, q_m, q_v)

    def kl_to_prior(self, z: Tensor, q_m: Tensor, q_v: Tensor) -> Tensor:
        """Return KL(q(z|x) ‖ p(z)), nats: (batch,). A mixture prior needs the draw z."""
        return ut.kl_normal(q_m, q_v, *self.z_prior)

    # Bounds

    def negative_elbo_bound(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """−ELBO(x) = KL(q(z|x) ‖ p(z)) − E_q[log p(x|z)] (Kingma & Welling 2014, eq. 3).

        Args:
            x: tensor: (batch, x_dim): images

        Returns:
            (nelbo, kl, rec): scalars, nats, means over the batch, with one draw of z for each image

        Raises:
            ValueError: x has the wrong shape, dtype or range
        """
        self.check_images(x)
        q_m, q_v = self.enc.encode(x)
        z = self.sample_q(q_m, q_v)
        kl = self.kl_to_prior(z, q_m, q_v).mean()
        rec = -self.likelihood.log_prob(x, self.dec.decode(z)).mean()
        return kl + rec, kl, rec

    def negative_iwae_bound(self, x: Tensor, iw: int) -> tuple[Tensor, Tensor, Tensor]:
        """−log (1/iw) Σ_i p(x, z_i)/q(z_i|x), z_i ~ q(z|x) (Burda et al. 2016, eq. 8).

        Args:
            x: tensor: (batch, x_dim): images
            iw: int: number of importance weights

        Returns:
            (niwae, kl, rec): scalars, nats, means over the batch; kl and rec are the means of the
            sampled terms, log q(z|x) − log p(z) and −log p(x|z)

        Raises:
            ValueError: iw is below 1, or x has the wrong shape, dtype or range
        """
        kl, rec = self.importance_terms(x, iw)
        niwae = -ut.log_mean_exp(-(kl + rec), dim=0).mean()
        return niwae, kl.mean(), rec.mean()

    def importance_terms(self, x: Tensor, iw: int) -> tuple[Tensor, Tensor]:
        """Return log q(z_i|x) − log p(z_i) and −log p(x|z_i), z_i ~ q(z|x), per draw and image.

        log_w = −(kl + rec) are the log weights: log_mean_exp(log_w, 0) is each image's bound, and
        1 / log_w.softmax(0).square().sum(0) its effective sample size. The draws are
        reparameterised, so the bound's gradient is the weighted sum of Burda et al., eq. 14.

        The decoder is given 5,000 rows at a time. Without gradients, memory does not grow with
        the number of pixels times iw; with gradients, it does.

        Args:
            x: tensor: (batch, x_dim): images
            iw: int: number of importance weights

        Returns:
            (kl, rec): tensors: each (iw, batch), nats

        Raises:
            ValueError: iw is below 1, or x has the wrong shape, dtype or range
        """
        self.check_images(x)
        if not isinstance(iw, numbers.Integral) or iw < 1:
            raise ValueError(f"iw is {iw!r}, expected a whole number of at least 1")
        q_m, q_v = self.enc.encode(x)
        rows = ut.duplicate(torch.arange(len(x), device=x.device), iw)  # (iw·batch,): whose draw
        z = self.sample_q(q_m[rows], q_v[rows])
        kl, rec = [], []
        for z_i, i in zip(z.split(MAX_ROWS), rows.split(MAX_ROWS), strict=True):
            kl.append(self.log_q(z_i, q_m[i], q_v[i]) - self.log_p_z(z_i))
            rec.append(-self.likelihood.log_prob(x[i], self.dec.decode(z_i)))
        return torch.cat(kl).view(iw, len(x)), torch.cat(rec).view(iw, len(x))

    # Loss

    def loss(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return beta·KL + Rec (the negative ELBO if beta is 1), and the scalars to record.

        Args:
            x: tensor: (batch, x_dim): images

        Returns:
            (loss, summaries): a scalar, and scalars keyed by tag; the ELBO among them ignores
            beta
        """
        nelbo, kl, rec = self.negative_elbo_bound(x)
        loss = self.beta * kl + rec
        return loss, {"train/loss": loss, "gen/elbo": -nelbo, "gen/kl_z": kl, "gen/rec": rec}
