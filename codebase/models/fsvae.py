"""The fully supervised VAE: all images are labelled, so y is observed and z holds the style."""

from torch import Tensor

from codebase import utils as ut
from codebase.models.base import LatentVariableModel
from codebase.models.likelihoods import Gaussian


class FSVAE(LatentVariableModel):
    """p(z) = N(0, I), p(x|y, z) = N(μ(y, z), 0.1·I), q(z|x, y) Gaussian; y is always given.

    Args:
        nn, name: see `LatentVariableModel`
    """

    dataset = "svhn"

    def __init__(self, nn: str = "v2", name: str = "fsvae"):
        super().__init__(nn, name, z_dim=10, y_dim=10, likelihood=Gaussian(variance=0.1))

    # Bounds

    def negative_elbo_bound(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """−ELBO(x|y) = KL(q(z|x,y) ‖ p(z)) − E_q log N(x; μ(y,z), 0.1·I), one draw of z.

        Args:
            x: tensor: (batch, x_dim): images
            y: tensor: (batch, y_dim): one-hot labels

        Returns:
            (nelbo, kl_z, rec): scalars, nats, means over the batch

        Raises:
            ValueError: x has the wrong shape, dtype or range, or y has the wrong shape or dtype
        """
        self.check_images(x)
        found = (tuple(y.shape), y.dtype) if isinstance(y, Tensor) else type(y).__name__
        if found != ((len(x), self.y_dim), x.dtype):
            raise ValueError(
                f"expected y to be one-hot labels of shape {(len(x), self.y_dim)}, {x.dtype}, got "
                f"{found}: F.one_hot(y, 10).float() converts digits to them"
            )
        q_m, q_v = self.enc.encode(x, y)
        z = ut.sample_gaussian(q_m, q_v)
        kl_z = ut.kl_normal(q_m, q_v, *self.z_prior).mean()
        rec = -self.likelihood.log_prob(x, self.dec.decode(z, y)).mean()
        return kl_z + rec, kl_z, rec

    # Loss

    def loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the negative ELBO, and the scalars to record.

        Args:
            x: tensor: (batch, x_dim): images
            y: tensor: (batch, y_dim): one-hot labels

        Returns:
            (loss, summaries): a scalar, and scalars keyed by tag
        """
        nelbo, kl_z, rec = self.negative_elbo_bound(x, y)
        return nelbo, {"train/loss": nelbo, "gen/elbo": -nelbo, "gen/kl_z": kl_z, "gen/rec": rec}

    # Reconstruction

    def observed(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return (x, y), because the bounds need the labels too."""
        return x, y

    def infer_latents(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Return the posterior mean of z, and y unchanged."""
        return self.enc.encode(x, y)[0], y
