"""p(x|z) as a function of the decoder's outputs h. A likelihood has no trained parameters."""

from collections.abc import Callable

import torch
from torch import Tensor

from codebase import utils as ut


class Bernoulli:
    """p(x|z) = Π_d Bernoulli(x_d; sigmoid(h_d)): binary images, h are logits."""

    binary = True

    def log_prob(self, x: Tensor, h: Tensor) -> Tensor:
        """Return log p(x|z), nats: x (..., x_dim), h (..., x_dim) → (...)."""
        return ut.log_bernoulli_with_logits(x, h)

    def mean(self, h: Tensor) -> Tensor:
        """Return E[x|z], in [0, 1]: (..., x_dim) → (..., x_dim)."""
        return h.sigmoid()

    def sample(self, h: Tensor) -> Tensor:
        """Draw x ~ p(x|z), zeros and ones: (..., x_dim) → (..., x_dim)."""
        return torch.bernoulli(self.mean(h))

    def observe(self, grey: Tensor) -> Tensor:
        """Draw each pixel as 0 or 1; its grey level is the probability of 1."""
        return ut.sample_bernoulli(grey)


class Gaussian:
    """p(x|z) = N(x; μ(h), variance·I): grey levels or colours.

    Args:
        variance: float: variance of each pixel
        squash: function μ, such as torch.sigmoid to keep the mean in [0, 1]; None: μ(h) = h
    """

    binary = False

    def __init__(self, variance: float, squash: Callable[[Tensor], Tensor] | None = None):
        self.variance, self.squash = variance, squash

    def log_prob(self, x: Tensor, h: Tensor) -> Tensor:
        """Return log p(x|z), nats: x (..., x_dim), h (..., x_dim) → (...)."""
        return ut.log_normal(x, self.mean(h), x.new_full((1,), self.variance))

    def mean(self, h: Tensor) -> Tensor:
        """Return E[x|z]: (..., x_dim) → (..., x_dim)."""
        return h if self.squash is None else self.squash(h)

    def sample(self, h: Tensor) -> Tensor:
        """Draw x ~ p(x|z): (..., x_dim) → (..., x_dim)."""
        mean = self.mean(h)
        return ut.sample_gaussian(mean, torch.full_like(mean, self.variance))

    def observe(self, grey: Tensor) -> Tensor:
        """Return grey levels in [0, 1] unchanged, as the model expects."""
        return grey


BERNOULLI = Bernoulli()
SQUASHES = {None: None, "sigmoid": torch.sigmoid}


def pixel_likelihood(name: str, sigma2: float) -> Bernoulli | Gaussian:
    """Return the likelihood "bernoulli", or "gaussian" with its mean in [0, 1]."""
    return BERNOULLI if name == "bernoulli" else Gaussian(sigma2, squash=torch.sigmoid)


def likelihood(description: str | dict) -> Bernoulli | Gaussian:
    """Return the likelihood that run.json describes: "bernoulli", or a variance and a squash."""
    if isinstance(description, str):
        return BERNOULLI
    return Gaussian(description["variance"], SQUASHES[description["squash"]])
