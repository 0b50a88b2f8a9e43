"""The correct bounds in every form that students write, and their parts. The mistakes use them too.

Three forms of KL agree on average: in closed form, estimated at the draw of z, and estimated with
the entropy of q in closed form.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

from codebase import utils as ut
from codebase.models import FSVAE, GMVAE, SSVAE, VAE

LOG_P_Y = -math.log(10)


def draw(model, x, *y, sample=ut.sample_gaussian):
    """Return q's mean and variance, and a draw of z: each (batch, z_dim)."""
    q_m, q_v = model.enc.encode(x, *y)
    return q_m, q_v, sample(q_m, q_v)


def rec_of(model, x, z, *y):
    """Return −log p(x|z), nats: (batch,); of the FSVAE, −log p(x|y, z)."""
    decoded = model.dec.decode(z, *y)
    return coloured(x, decoded) if y else -ut.log_bernoulli_with_logits(x, decoded)


def coloured(x, mean, variance=0.1):
    """Return −log N(x; mean, variance·I), nats: (batch,)."""
    return -ut.log_normal(x, mean, torch.tensor([variance]))


def means(*terms):
    """Average terms over the batch."""
    return tuple(term.mean() for term in terms)


def bound(*terms):
    """Average the terms over images; return their sum, then each of them."""
    terms = means(*terms)
    return sum(terms), *terms


def log_standard(z):
    """Return log N(z; 0, I), nats: (batch,)."""
    return ut.log_normal(z, torch.zeros_like(z), torch.ones_like(z))


def log_prior(model, z):
    """Return log p(z) for a model of any class, nats: (batch,)."""
    return model.log_p_z(z) if isinstance(model, VAE) else log_standard(z)


def closed(model, q_m, q_v, z):
    """Return KL(q ‖ p) in closed form, nats: (batch,)."""
    return ut.kl_normal(q_m, q_v, *model.z_prior)


def kl_of(model, q_m, q_v, z):
    """Return this project's KL term for the class of the model, nats: (batch,)."""
    return model.kl_to_prior(z, q_m, q_v) if isinstance(model, VAE) else closed(model, q_m, q_v, z)


def at_the_draw(model, q_m, q_v, z):
    """Return log q(z|x) − log p(z), nats: (batch,)."""
    return ut.log_normal(z, q_m, q_v) - log_prior(model, z)


def with_entropy(model, q_m, q_v, z):
    """Return −H(q) − log p(z), nats: (batch,)."""
    return -0.5 * (1 + math.log(2 * math.pi) + q_v.log()).sum(-1) - log_prior(model, z)


def _elbo(kl):
    def run(model, x, *y):
        q_m, q_v, z = draw(model, x, *y)
        return bound(kl(model, q_m, q_v, z), rec_of(model, x, z, *y))

    return run


def _iwae(reported, by_image=False):
    """Return an importance-weighted bound; draws are (iw, batch) or, by image, (batch, iw)."""

    def run(model, x, iw):
        def repeated(rows):
            return rows.repeat_interleave(iw, 0) if by_image else ut.duplicate(rows, iw)

        q_m, q_v = map(repeated, model.enc.encode(x))
        z = ut.sample_gaussian(q_m, q_v)
        kl = at_the_draw(model, q_m, q_v, z)
        rec = rec_of(model, repeated(x), z)
        weights = -(kl + rec).view(-1, iw).T if by_image else -(kl + rec).view(iw, -1)
        return -ut.log_mean_exp(weights, 0).mean(), *means(reported(model, q_m, q_v, z), rec)

    return run


def _labels(kl, shared):
    """Return the SSVAE's bound, with noise per label and image or, if `shared`, per image."""

    def run(model, x):
        log_q_y = F.log_softmax(model.cls.classify(x), -1)
        q_m, q_v = model.enc.encode(x, torch.eye(10).unsqueeze(1))  # (label, batch, z_dim)
        noise = torch.randn(q_m.shape[1:] if shared else q_m.shape)
        z = q_m + q_v.sqrt() * noise
        rec = -ut.log_bernoulli_with_logits(x, model.dec.decode(z, torch.eye(10).unsqueeze(1)))
        kl_y = ut.kl_cat(log_q_y.exp(), log_q_y, LOG_P_Y).mean()
        terms = (kl(model, q_m, q_v, z), rec)
        kl_z, rec = ((log_q_y.exp().T * term).sum(0).mean() for term in terms)
        return kl_y + kl_z + rec, kl_z, kl_y, rec

    return run


# This project's function first: what is right is said to be its value.
FORMS: dict[str, list[Callable]] = {
    "sample_gaussian": [ut.sample_gaussian],
    "log_normal": [ut.log_normal],
    "log_normal_mixture": [ut.log_normal_mixture],
    "VAE.negative_elbo_bound": [VAE.negative_elbo_bound, _elbo(at_the_draw), _elbo(with_entropy)],
    "GMVAE.negative_elbo_bound": [GMVAE.negative_elbo_bound, _elbo(with_entropy)],
    "VAE.negative_iwae_bound": [
        VAE.negative_iwae_bound,
        _iwae(closed),
        _iwae(with_entropy),
        _iwae(closed, True),
    ],
    "GMVAE.negative_iwae_bound": [
        GMVAE.negative_iwae_bound,
        *(_iwae(with_entropy, by_image) for by_image in (False, True)),
    ],
    "SSVAE.negative_elbo_bound": [
        SSVAE.negative_elbo_bound,
        *(_labels(kl, shared) for shared in (0, 1) for kl in (closed, at_the_draw, with_entropy)),
    ],
    "FSVAE.negative_elbo_bound": [
        *(FSVAE.negative_elbo_bound, _elbo(at_the_draw), _elbo(with_entropy))
    ],
}
