"""What bounds are made of, right: mistakes put it together wrongly."""

import torch

from codebase import utils as ut

WRONG_NOISE = {  # in place of sample_gaussian: a name and a sentence, and what draws z
    ("noise scaled by v", "You scale ε by v; scale it by √v, the standard deviation."): (
        lambda m, v: m + v * torch.randn_like(m)
    ),
    ("noise shared by the batch", "You share ε between rows; draw one for every row."): (
        lambda m, v: m + v.sqrt() * torch.randn(m.shape[-1])
    ),
    ("noise shared by dimensions", "You share ε between dimensions; draw one for each."): (
        lambda m, v: m + v.sqrt() * torch.randn(*m.shape[:-1], 1)
    ),
    ("one number as noise", "You draw one number as ε; draw one for every element."): (
        lambda m, v: m + v.sqrt() * torch.randn(1)
    ),
}


def draw(model, x, *y, sample=ut.sample_gaussian):
    """q's mean and variance, and a draw of z: each (batch, z_dim)."""
    q_m, q_v = model.enc.encode(x, *y)
    return q_m, q_v, sample(q_m, q_v)


def reconstruction(model, x, z):
    """−log p(x|z), nats: (batch,)."""
    return -ut.log_bernoulli_with_logits(x, model.dec.decode(z))


def bound(kl, rec):
    """(nelbo, kl, rec), scalars, from the terms of each image."""
    kl, rec = kl.mean(), rec.mean()
    return kl + rec, kl, rec


def log_standard(z):
    """log N(z; 0, I), nats: (batch,)."""
    return ut.log_normal(z, torch.zeros_like(z), torch.ones_like(z))
