"""The right parts of bounds; the catalogue's mistakes combine them wrongly."""

import torch

from codebase import utils as ut

WRONG_NOISE = {  # in place of sample_gaussian
    "noise scaled by v": lambda m, v: m + v * torch.randn_like(m),
    "noise shared by the batch": lambda m, v: m + v.sqrt() * torch.randn(m.shape[-1]),
    "noise shared by dimensions": lambda m, v: m + v.sqrt() * torch.randn(*m.shape[:-1], 1),
    "one number as noise": lambda m, v: m + v.sqrt() * torch.randn(1),
}


def draw(model, x, *y, sample=ut.sample_gaussian):
    """q's mean and variance, and a draw of z: each (batch, z_dim)."""
    q_m, q_v = model.enc.encode(x, *y)
    return q_m, q_v, sample(q_m, q_v)


def reconstruction(model, x, z):
    """−log p(x|z), nats: (batch,)."""
    return -ut.log_bernoulli_with_logits(x, model.dec.decode(z))


def means(*terms):
    """Their means over the batch."""
    return tuple(term.mean() for term in terms)


def bound(*terms):
    """Scalars, from the terms of each image: their sum, and each of them."""
    terms = means(*terms)
    return sum(terms), *terms


def log_standard(z):
    """log N(z; 0, I), nats: (batch,)."""
    return ut.log_normal(z, torch.zeros_like(z), torch.ones_like(z))


def zeros(count):
    """Return a function of any arguments that returns zeros in place of its values."""
    return lambda *args: torch.zeros(count).unbind()
