"""Right bounds of another form: KL in closed form or at the draw, which agree on average."""

import math

import torch
import torch.nn.functional as F

from codebase import utils as ut
from codebase.homework.mistakes.parts import bound, draw, log_standard, reconstruction


def _vae(model, x):
    q_m, q_v, z = draw(model, x)
    return bound(ut.log_normal(z, q_m, q_v) - log_standard(z), reconstruction(model, x, z))


def _entropy(model, x):
    """KL with the entropy of q in closed form."""
    _q_m, q_v, z = draw(model, x)
    entropy = 0.5 * (1 + math.log(2 * math.pi) + q_v.log()).sum(-1)
    return bound(-entropy - model.log_p_z(z), reconstruction(model, x, z))


def _vae_iwae(model, x, iw):
    kl, rec = model.importance_terms(x, iw)
    closed = ut.kl_normal(*model.enc.encode(x), *model.z_prior)
    return -ut.log_mean_exp(-kl - rec, 0).mean(), closed.mean(), rec.mean()


def _ssvae(model, x):
    log_q_y = F.log_softmax(model.cls.classify(x), -1)
    q_y, y = log_q_y.exp(), torch.eye(10).unsqueeze(1)  # y: (label, 1, label)
    q_m, q_v, z = draw(model, x, y)
    kl_z = ut.log_normal(z, q_m, q_v) - log_standard(z)  # (label, batch)
    rec = -ut.log_bernoulli_with_logits(x, model.dec.decode(z, y))
    kl_y = ut.kl_cat(q_y, log_q_y, -math.log(10)).mean()
    kl_z, rec = ((q_y.T * term).sum(0).mean() for term in (kl_z, rec))
    return kl_y + kl_z + rec, kl_z, kl_y, rec


def _fsvae(model, x, y):
    q_m, q_v, z = draw(model, x, y)
    rec = -ut.log_normal(x, model.dec.decode(z, y), torch.tensor([0.1]))
    return bound(ut.log_normal(z, q_m, q_v) - log_standard(z), rec)


ALTERNATIVES = {
    "VAE.negative_elbo_bound": (_vae, _entropy),
    "GMVAE.negative_elbo_bound": (_entropy,),
    "VAE.negative_iwae_bound": (_vae_iwae,),
    "SSVAE.negative_elbo_bound": (_ssvae,),
    "FSVAE.negative_elbo_bound": (_fsvae,),
}
