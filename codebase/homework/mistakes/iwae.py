"""Mistakes in the importance-weighted bounds."""

import math

import torch

from codebase import utils as ut
from codebase.homework.mistakes.catalogue import mistake
from codebase.homework.mistakes.parts import bound, draw, log_standard, reconstruction


def _weighted(model, x, iw):
    """q's parameters and z of iw·batch rows, with log q − log p and −log p(x|z) of each."""
    q_m, q_v = (ut.duplicate(q, iw) for q in model.enc.encode(x))
    z = ut.sample_gaussian(q_m, q_v)
    kl = ut.log_normal(z, q_m, q_v) - model.log_p_z(z)
    return q_m, q_v, z, kl, reconstruction(model, ut.duplicate(x, iw), z)


def _iwae(log_weights, iw, kl, rec):
    """The right bound of log weights, iw·batch of them."""
    niwae = -ut.log_mean_exp(log_weights.view(iw, -1), 0).mean()
    return niwae, kl.mean(), rec.mean()


@mistake(
    "iwae", "no − log m", "niwae", "log-sum-exp lacks − log m: it is the log of the mean weight."
)
def _(model, x, iw):
    *_, kl, rec = _weighted(model, x, iw)
    return _iwae(-kl - rec + math.log(iw), iw, kl, rec)


@mistake("iwae", "− log m twice", "niwae", "log m is subtracted twice.")
def _(model, x, iw):
    *_, kl, rec = _weighted(model, x, iw)
    return _iwae(-kl - rec - math.log(iw), iw, kl, rec)


@mistake(
    "iwae",
    "mean of logarithms",
    "niwae",
    "The mean of the log weights is the ELBO; the log of the weights' mean is wanted.",
)
def _(model, x, iw):
    *_, kl, rec = _weighted(model, x, iw)
    return (kl + rec).mean(), kl.mean(), rec.mean()


@mistake(
    "iwae",
    "rows the wrong way round",
    "niwae",
    "duplicate repeats the whole batch: its rows are (m, batch), not (batch, m).",
)
def _(model, x, iw):
    *_, kl, rec = _weighted(model, x, iw)
    niwae = -ut.log_mean_exp((-kl - rec).view(len(x), iw), 1).mean()
    return niwae, kl.mean(), rec.mean()


@mistake("iwae", "wrong axis", "niwae", "The log of the mean is over the batch, not the weights.")
def _(model, x, iw):
    *_, kl, rec = _weighted(model, x, iw)
    niwae = -ut.log_mean_exp((-kl - rec).view(iw, len(x)), 1).mean()
    return niwae, kl.mean(), rec.mean()


@mistake("iwae", "mean over everything", "niwae", "Each image has a mean weight of its own.")
def _(model, x, iw):
    *_, kl, rec = _weighted(model, x, iw)
    return -ut.log_mean_exp(-kl - rec, 0), kl.mean(), rec.mean()


@mistake("iwae", "inverse weights", "niwae", "The weights are q/p; they are p/q.")
def _(model, x, iw):
    *_, kl, rec = _weighted(model, x, iw)
    return _iwae(kl + rec, iw, kl, rec)


@mistake(
    "iwae", "sign within", "niwae", "log-mean-exp is taken of the negative log weights: a sign."
)
def _(model, x, iw):
    *_, kl, rec = _weighted(model, x, iw)
    niwae, kl, rec = _iwae(kl + rec, iw, kl, rec)
    return -niwae, kl, rec


@mistake("iwae", "sign of the bound", "niwae", "This is the bound; its negative is wanted.")
def _(model, x, iw):
    *_, kl, rec = _weighted(model, x, iw)
    niwae, kl, rec = _iwae(-kl - rec, iw, kl, rec)
    return -niwae, kl, rec


@mistake("iwae", "weights without q", "niwae", "log q(z|x) is missing from the weights.")
def _(model, x, iw):
    *_, z, kl, rec = _weighted(model, x, iw)
    return _iwae(model.log_p_z(z) - rec, iw, kl, rec)


@mistake(
    "iwae",
    "weights without the prior",
    "niwae|niwae.gradient",
    "log p(z) is missing from the weights.",
)
def _(model, x, iw):
    q_m, q_v, z, kl, rec = _weighted(model, x, iw)
    return _iwae(-ut.log_normal(z, q_m, q_v) - rec, iw, kl, rec)


@mistake("iwae", "weights of rec alone", "niwae|niwae.gradient", "The weights lack p(z)/q(z|x).")
def _(model, x, iw):
    *_, kl, rec = _weighted(model, x, iw)
    return _iwae(-rec, iw, kl, rec)


@mistake("iwae", "weights of kl alone", "niwae.gradient", "The weights lack p(x|z).")
def _(model, x, iw):
    *_, kl, rec = _weighted(model, x, iw)
    return _iwae(-kl, iw, kl, rec)


@mistake("iwae", "one z for all", "niwae", "Each weight needs a draw of its own; z is duplicated.")
def _(model, x, iw):
    q_m, q_v, z = draw(model, x)
    kl = ut.log_normal(z, q_m, q_v) - model.log_p_z(z)
    rec = reconstruction(model, x, z)
    return bound(kl, rec)


@mistake(
    "iwae",
    "z is the mean",
    "niwae.kl.rec",
    "z is q's mean: the draws from q(z|x) are missing.",
)
def _(model, x, iw):
    q_m, q_v = model.enc.encode(x)
    kl = ut.log_normal(q_m, q_m, q_v) - model.log_p_z(q_m)
    return bound(kl, reconstruction(model, x, q_m))


@mistake("iwae", "largest weight", "niwae", "The largest weight, not the weights' mean.")
def _(model, x, iw):
    *_, kl, rec = _weighted(model, x, iw)
    return (kl + rec).view(iw, -1).amin(0).mean(), kl.mean(), rec.mean()


@mistake(
    "iwae",
    "images and draws mismatched",
    "niwae.rec",
    "The rows of x and of z are of other images.",
)
def _(model, x, iw):
    *_, z, kl, _rows = _weighted(model, x, iw)
    rec = reconstruction(model, x.repeat_interleave(iw, 0), z)
    return _iwae(-kl - rec, iw, kl, rec)


@mistake("iwae", "sign of rec", "niwae.rec", "The reconstruction term has the wrong sign.")
def _(model, x, iw):
    *_, kl, rec = _weighted(model, x, iw)
    return _iwae(-kl + rec, iw, kl, -rec)


@mistake("iwae", "sign of rec returned", "rec", "The bound is right, but rec has the wrong sign.")
def _(model, x, iw):
    *_, kl, rec = _weighted(model, x, iw)
    return _iwae(-kl - rec, iw, kl, -rec)


@mistake("iwae", "kl and rec left 0", "kl.rec", "The bound is right, but kl and rec are left 0.")
def _(model, x, iw):
    *_, kl, rec = _weighted(model, x, iw)
    return _iwae(-kl - rec, iw, 0 * kl.detach(), 0 * rec.detach())


@mistake("iwae", "averaged over pixels", "niwae.rec", "rec is a sum over pixels, not their mean.")
def _(model, x, iw):
    *_, kl, rec = _weighted(model, x, iw)
    rec = rec / x.shape[-1]
    return _iwae(-kl - rec, iw, kl, rec)


@mistake(
    "iwae", "not averaged over the batch", "niwae.kl.rec", "The mean over the batch is missing."
)
def _(model, x, iw):
    *_, kl, rec = _weighted(model, x, iw)
    kl, rec = kl.view(iw, -1), rec.view(iw, -1)
    return -ut.log_mean_exp(-kl - rec, 0), kl.mean(0), rec.mean(0)


@mistake("iwae", "without gradient", "gradient", "The bound is detached: it trains nothing.")
def _(model, x, iw):
    *_, kl, rec = _weighted(model, x, iw)
    return tuple(term.detach() for term in _iwae(-kl - rec, iw, kl, rec))


@mistake("iwae", "z is detached", "gradient", "z is detached: the encoder gets a wrong gradient.")
def _(model, x, iw):
    q_m, q_v, z, *_ = _weighted(model, x, iw)
    z = z.detach()
    kl = ut.log_normal(z, q_m, q_v) - model.log_p_z(z)
    rec = reconstruction(model, ut.duplicate(x, iw), z)
    return _iwae(-kl - rec, iw, kl, rec)


@mistake(
    "iwae", "weights clipped", "niwae.gradient", "The log weights are clipped before the mean."
)
def _(model, x, iw):
    *_, kl, rec = _weighted(model, x, iw)
    return _iwae((-kl - rec).clamp(min=-100), iw, kl, rec)


@mistake("iwae", "one weight", "niwae", "One weight alone is used, whatever m is.")
def _(model, x, iw):
    *_, kl, rec = _weighted(model, x, iw)
    first = (kl + rec)[: len(x)].mean()
    return first, kl.mean(), rec.mean()


@mistake(
    "vae iwae",
    "closed-form KL in the weights",
    "niwae",
    "The weights want log q − log p at each z.",
)
def _(model, x, iw):
    q_m, q_v, z, kl, rec = _weighted(model, x, iw)
    closed = ut.kl_normal(q_m, q_v, *model.z_prior)
    return _iwae(-closed - rec, iw, kl, rec)


@mistake(
    "gmvae iwae", "prior N(0, I)", "niwae.kl.gradient", "The prior is the mixture, not N(0, I)."
)
def _(model, x, iw):
    q_m, q_v, z, _kl, rec = _weighted(model, x, iw)
    kl = ut.log_normal(z, q_m, q_v) - log_standard(z)
    return _iwae(-kl - rec, iw, kl, rec)


@mistake(
    "gmvae iwae", "prior without − log k", "niwae.kl", "The mixture's weights 1/k are missing."
)
def _(model, x, iw):
    *_, kl, rec = _weighted(model, x, iw)
    kl = kl - math.log(model.k)
    return _iwae(-kl - rec, iw, kl, rec)


@mistake("gmvae iwae", "prior's variance ignored", "niwae.kl", "The prior's variances are ignored.")
def _(model, x, iw):
    q_m, q_v, z, _kl, rec = _weighted(model, x, iw)
    p_m, p_v = model.z_prior
    kl = ut.log_normal(z, q_m, q_v) - ut.log_normal_mixture(z, p_m, torch.ones_like(p_v))
    return _iwae(-kl - rec, iw, kl, rec)
