"""The semi-supervised VAE: label y, style z, few labelled images (Kingma et al. 2014, M2)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from codebase import utils as ut
from codebase.models import nns
from codebase.models.base import LatentVariableModel

# Labels whose q(y|x) is at most this many machine epsilons (1.2e-8 in float32) are left out of the
# bound on a CPU: value and gradient stay as close to the sum in float64 as with all labels.
NEGLIGIBLE_EPSILONS = 0.1


class SSVAE(LatentVariableModel):
    """p(y) uniform, p(z) = N(0, I), p(x|y, z) Bernoulli; q(y|x) categorical, q(z|x, y) Gaussian.

    Args:
        nn, name: see `LatentVariableModel`
        gen_weight: float: weight of the negative ELBO in the loss
        class_weight: float: weight of the classifier's cross-entropy in the loss
    """

    def __init__(
        self,
        nn: str = "v1",
        name: str = "ssvae",
        gen_weight: float = 1,
        class_weight: float = 100,
    ):
        super().__init__(nn, name, z_dim=64, y_dim=10)
        self.cls = nns.architecture(nn).Classifier(self.y_dim)
        self.gen_weight, self.class_weight = gen_weight, class_weight
        self.generates = gen_weight != 0
        self.compiles = not self.generates  # compiled code computes the terms of all labels

    # Bounds

    def negative_elbo_bound(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """−ELBO(x) = KL(q(y|x) ‖ p(y)) + Σ_y q(y|x)·[KL(q(z|x,y) ‖ p(z)) − E_q log p(x|y,z)].

        The sum over the ten labels is exact up to rounding: labels with negligible q(y|x) are left
        out (section 6 of the equations). z is one draw for each label and image
        (Kingma et al. 2014, eq. 7).

        Args:
            x: tensor: (batch, x_dim): images

        Returns:
            (nelbo, kl_z, kl_y, rec): scalars, nats, means over the batch

        Raises:
            ValueError: x has the wrong shape, dtype or range
        """
        self.check_images(x)
        log_q_y = F.log_softmax(self.cls.classify(x), dim=-1)  # (batch, label)
        kl_y = ut.kl_cat(log_q_y.exp(), log_q_y, -math.log(self.y_dim)).mean()
        q_y = log_q_y.exp().T  # (label, batch)
        # For all labels, whichever count: one seed gives everyone the same draws.
        noise = ut.sample_gaussian(x.new_zeros(*q_y.shape, self.z_dim), x.new_ones(1))
        label, image = self.pairs_that_count(q_y)  # (pairs,) each
        y = torch.eye(self.y_dim, dtype=x.dtype, device=x.device)[label]
        q_m, q_v = self.enc.encode(x, y, rows=image)  # (pairs, z_dim)
        z = q_m + q_v.sqrt() * noise[label, image]
        kl_z = ut.kl_normal(q_m, q_v, *self.z_prior)  # (pairs,)
        rec = -self.likelihood.log_prob(x[image], self.dec.decode(z, y))
        q = q_y[label, image]
        kl_z, rec = (q * kl_z).sum() / len(x), (q * rec).sum() / len(x)
        return kl_y + kl_z + rec, kl_z, kl_y, rec

    def pairs_that_count(self, q_y: Tensor) -> tuple[Tensor, Tensor]:
        """Return label and image of each term of Σ_y q(y|x)·[...] to compute: (pairs,) each.

        On devices other than a CPU, and inside torch.compile, all terms are computed, because
        counting them would make the host wait, and compiled code has fixed shapes.

        Args:
            q_y: tensor: (label, batch): q(y|x)
        """
        if q_y.device.type == "cpu" and not torch.compiler.is_compiling():
            least = NEGLIGIBLE_EPSILONS * torch.finfo(q_y.dtype).eps
            label, image = (~(q_y <= least)).nonzero(as_tuple=True)  # not a number counts, too
            return label, image
        labels, images = (torch.arange(n, device=q_y.device) for n in q_y.shape)
        return labels.repeat_interleave(len(images)), images.repeat(len(labels))

    def classification_cross_entropy(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the mean of −log q(y|x), nats: x (batch, x_dim), one-hot y (batch, y_dim)."""
        return F.cross_entropy(self.cls.classify(x), y)

    # Loss

    def loss(self, x: Tensor, xl: Tensor, yl: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return gen_weight·NELBO(x) + class_weight·cross-entropy(xl, yl), and scalars to record.

        Args:
            x: tensor: (batch, x_dim): images without labels
            xl: tensor: (labelled, x_dim): labelled images
            yl: tensor: (labelled, y_dim): their one-hot labels

        Returns:
            (loss, summaries): a scalar, and scalars keyed by tag. With gen_weight 0 the generative
            terms are not computed; their summaries are 0
        """
        nelbo = kl_z = kl_y = rec = torch.zeros((), dtype=x.dtype, device=x.device)
        if self.gen_weight != 0:
            nelbo, kl_z, kl_y, rec = self.negative_elbo_bound(x)
        logits = self.cls.classify(xl)
        ce = F.cross_entropy(logits, yl)
        accuracy = (logits.argmax(-1) == yl.argmax(-1)).to(x.dtype).mean()
        loss = self.gen_weight * nelbo + self.class_weight * ce
        return loss, {
            "train/loss": loss,
            "class/ce": ce,
            "class/acc": accuracy,
            "gen/elbo": -nelbo,
            "gen/kl_z": kl_z,
            "gen/kl_y": kl_y,
            "gen/rec": rec,
        }

    # Reconstruction

    def infer_latents(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the posterior mean of z for the classifier's label, and the label."""
        y = F.one_hot(self.cls.classify(x).argmax(-1), self.y_dim).to(x.dtype)
        return self.enc.encode(x, y)[0], y
