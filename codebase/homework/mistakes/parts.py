"""What bounds are made of, right: mistakes put it together wrongly."""

import torch

from codebase import utils as ut


def draw(model, x, *y):
    """q's mean and variance, and a draw of z: each (batch, z_dim)."""
    q_m, q_v = model.enc.encode(x, *y)
    return q_m, q_v, ut.sample_gaussian(q_m, q_v)


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
