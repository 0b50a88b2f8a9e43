"""Mistakes in the importance-weighted bounds."""

import functools
import math

import torch

from codebase import utils as ut
from codebase.homework.mistakes.catalogue import mistake
from codebase.homework.mistakes.parts import WRONG_NOISE, bound, draw, log_standard, reconstruction


def _weighted(model, x, iw, sample=ut.sample_gaussian):
    """q's parameters and z of iw·batch rows, with log q − log p and −log p(x|z) of each."""
    q_m, q_v = (ut.duplicate(q, iw) for q in model.enc.encode(x))
    z = sample(q_m, q_v)
    kl = ut.log_normal(z, q_m, q_v) - model.log_p_z(z)
    return q_m, q_v, z, kl, reconstruction(model, ut.duplicate(x, iw), z)


def _iwae(log_weights, iw, kl, rec):
    """The right bound of log weights, iw·batch of them."""
    niwae = -ut.log_mean_exp(log_weights.view(iw, -1), 0).mean()
    return niwae, kl.mean(), rec.mean()


@mistake(
    "iwae",
    "no − log m",
    "niwae",
    "You leave out − log m; subtract it, for the log of the mean of m weights.",
)
def _(model, x, iw):
    *_, kl, rec = _weighted(model, x, iw)
    return _iwae(-kl - rec + math.log(iw), iw, kl, rec)


@mistake("iwae", "− log m twice", "niwae", "You subtract log m twice; subtract it once.")
def _(model, x, iw):
    *_, kl, rec = _weighted(model, x, iw)
    return _iwae(-kl - rec - math.log(iw), iw, kl, rec)


@mistake(
    "iwae",
    "mean of logarithms",
    "niwae",
    "You average the log weights, which is the ELBO; take the log of the mean weight.",
)
def _(model, x, iw):
    *_, kl, rec = _weighted(model, x, iw)
    return (kl + rec).mean(), kl.mean(), rec.mean()


@mistake(
    "iwae",
    "rows the wrong way round",
    "niwae",
    "You reshape to (batch, m); duplicate repeats the batch, so reshape to (m, batch).",
)
def _(model, x, iw):
    *_, kl, rec = _weighted(model, x, iw)
    niwae = -ut.log_mean_exp((-kl - rec).view(len(x), iw), 1).mean()
    return niwae, kl.mean(), rec.mean()


@mistake(
    "iwae",
    "wrong axis",
    "niwae",
    "You average over the batch inside the log; average over the m weights.",
)
def _(model, x, iw):
    *_, kl, rec = _weighted(model, x, iw)
    niwae = -ut.log_mean_exp((-kl - rec).view(iw, len(x)), 1).mean()
    return niwae, kl.mean(), rec.mean()


@mistake(
    "iwae",
    "mean over everything",
    "niwae",
    "You average the weights of all images; average the m weights of each image.",
)
def _(model, x, iw):
    *_, kl, rec = _weighted(model, x, iw)
    return -ut.log_mean_exp(-kl - rec, 0), kl.mean(), rec.mean()


@mistake("iwae", "inverse weights", "niwae", "You use q/p as weights; use p/q.")
def _(model, x, iw):
    *_, kl, rec = _weighted(model, x, iw)
    return _iwae(kl + rec, iw, kl, rec)


@mistake(
    "iwae",
    "sign within",
    "niwae",
    "You negate the log weights in the log-mean-exp; negate only the result.",
)
def _(model, x, iw):
    *_, kl, rec = _weighted(model, x, iw)
    niwae, kl, rec = _iwae(kl + rec, iw, kl, rec)
    return -niwae, kl, rec


@mistake("iwae", "sign of the bound", "niwae", "You return the bound; return its negative.")
def _(model, x, iw):
    *_, kl, rec = _weighted(model, x, iw)
    niwae, kl, rec = _iwae(-kl - rec, iw, kl, rec)
    return -niwae, kl, rec


@mistake(
    "iwae", "weights without q", "niwae", "You leave log q(z|x) out of the weights; subtract it."
)
def _(model, x, iw):
    *_, z, kl, rec = _weighted(model, x, iw)
    return _iwae(model.log_p_z(z) - rec, iw, kl, rec)


@mistake(
    "iwae",
    "weights without the prior",
    "niwae|niwae.gradient",
    "You leave log p(z) out of the weights; add it.",
)
def _(model, x, iw):
    q_m, q_v, z, kl, rec = _weighted(model, x, iw)
    return _iwae(-ut.log_normal(z, q_m, q_v) - rec, iw, kl, rec)


@mistake(
    "iwae",
    "weights of rec alone",
    "niwae|niwae.gradient",
    "You use p(x|z) as weights; multiply by p(z)/q(z|x).",
)
def _(model, x, iw):
    *_, kl, rec = _weighted(model, x, iw)
    return _iwae(-rec, iw, kl, rec)


@mistake(
    "iwae",
    "weights of kl alone",
    "niwae.gradient",
    "You use p(z)/q(z|x) as weights; multiply by p(x|z).",
)
def _(model, x, iw):
    *_, kl, rec = _weighted(model, x, iw)
    return _iwae(-kl, iw, kl, rec)


@mistake(
    "iwae",
    "one z for all",
    "niwae",
    "You repeat one draw of z; draw one for each of the m weights.",
)
def _(model, x, iw):
    q_m, q_v, z = draw(model, x)
    kl = ut.log_normal(z, q_m, q_v) - model.log_p_z(z)
    rec = reconstruction(model, x, z)
    return bound(kl, rec)


@mistake(
    "iwae",
    "z is the mean",
    "niwae.kl.rec",
    "You use the mean of q(z|x) as z; draw m times with sample_gaussian.",
)
def _(model, x, iw):
    q_m, q_v = model.enc.encode(x)
    kl = ut.log_normal(q_m, q_m, q_v) - model.log_p_z(q_m)
    return bound(kl, reconstruction(model, x, q_m))


@mistake(
    "iwae", "largest weight", "niwae", "You take the largest weight; take the mean of the weights."
)
def _(model, x, iw):
    *_, kl, rec = _weighted(model, x, iw)
    return (kl + rec).view(iw, -1).amin(0).mean(), kl.mean(), rec.mean()


@mistake(
    "iwae",
    "images and draws mismatched",
    "niwae.rec",
    "You pair x and z of different images; repeat both in the same order.",
)
def _(model, x, iw):
    *_, z, kl, _rows = _weighted(model, x, iw)
    rec = reconstruction(model, x.repeat_interleave(iw, 0), z)
    return _iwae(-kl - rec, iw, kl, rec)


@mistake("iwae", "sign of rec", "niwae.rec", "You return +log p(x|z) as rec; rec is −log p(x|z).")
def _(model, x, iw):
    *_, kl, rec = _weighted(model, x, iw)
    return _iwae(-kl + rec, iw, kl, -rec)


@mistake(
    "iwae",
    "sign of rec returned",
    "rec",
    "You return rec with the wrong sign; return −log p(x|z). The bound is right.",
)
def _(model, x, iw):
    *_, kl, rec = _weighted(model, x, iw)
    return _iwae(-kl - rec, iw, kl, -rec)


@mistake(
    "iwae",
    "kl and rec left 0",
    "kl.rec",
    "You return kl and rec as 0; return their values. The bound is right.",
)
def _(model, x, iw):
    *_, kl, rec = _weighted(model, x, iw)
    return _iwae(-kl - rec, iw, 0 * kl.detach(), 0 * rec.detach())


@mistake("iwae", "averaged over pixels", "niwae.rec", "You average rec over pixels; sum over them.")
def _(model, x, iw):
    *_, kl, rec = _weighted(model, x, iw)
    rec = rec / x.shape[-1]
    return _iwae(-kl - rec, iw, kl, rec)


@mistake(
    "iwae",
    "not averaged over the batch",
    "niwae.kl.rec",
    "You return one value per image; average over the batch.",
)
def _(model, x, iw):
    *_, kl, rec = _weighted(model, x, iw)
    kl, rec = kl.view(iw, -1), rec.view(iw, -1)
    return -ut.log_mean_exp(-kl - rec, 0), kl.mean(0), rec.mean(0)


@mistake(
    "iwae",
    "without gradient",
    "gradient",
    "You detach the bound, so it trains nothing; let gradients through.",
)
def _(model, x, iw):
    *_, kl, rec = _weighted(model, x, iw)
    return tuple(term.detach() for term in _iwae(-kl - rec, iw, kl, rec))


@mistake(
    "iwae",
    "z is detached",
    "gradient",
    "You detach z, so the encoder's gradient is wrong; let gradients through.",
)
def _(model, x, iw):
    q_m, q_v, z, *_ = _weighted(model, x, iw)
    z = z.detach()
    kl = ut.log_normal(z, q_m, q_v) - model.log_p_z(z)
    rec = reconstruction(model, ut.duplicate(x, iw), z)
    return _iwae(-kl - rec, iw, kl, rec)


@mistake(
    "iwae",
    "weights clipped",
    "niwae.gradient",
    "You clip the log weights; log_mean_exp needs no clipping.",
)
def _(model, x, iw):
    *_, kl, rec = _weighted(model, x, iw)
    return _iwae((-kl - rec).clamp(min=-100), iw, kl, rec)


@mistake("iwae", "one weight", "niwae", "You use only one weight; use all m.")
def _(model, x, iw):
    *_, kl, rec = _weighted(model, x, iw)
    first = (kl + rec)[: len(x)].mean()
    return first, kl.mean(), rec.mean()


@mistake(
    "vae iwae",
    "closed-form KL in the weights",
    "niwae",
    "You use the closed-form KL in the weights; use log q(z|x) − log p(z) at each z.",
)
def _(model, x, iw):
    q_m, q_v, z, kl, rec = _weighted(model, x, iw)
    closed = ut.kl_normal(q_m, q_v, *model.z_prior)
    return _iwae(-closed - rec, iw, kl, rec)


@mistake(
    "gmvae iwae",
    "prior N(0, I)",
    "niwae.kl.gradient",
    "You use the prior N(0, I); use the mixture of Gaussians.",
)
def _(model, x, iw):
    q_m, q_v, z, _kl, rec = _weighted(model, x, iw)
    kl = ut.log_normal(z, q_m, q_v) - log_standard(z)
    return _iwae(-kl - rec, iw, kl, rec)


@mistake(
    "gmvae iwae",
    "prior without − log k",
    "niwae.kl",
    "You leave out the mixture's weights 1/k; subtract log k from log p(z).",
)
def _(model, x, iw):
    *_, kl, rec = _weighted(model, x, iw)
    kl = kl - math.log(model.k)
    return _iwae(-kl - rec, iw, kl, rec)


@mistake(
    "gmvae iwae",
    "prior's variance ignored",
    "niwae.kl",
    "You ignore the prior's variances; pass both means and variances.",
)
def _(model, x, iw):
    q_m, q_v, z, _kl, rec = _weighted(model, x, iw)
    p_m, p_v = model.z_prior
    kl = ut.log_normal(z, q_m, q_v) - ut.log_normal_mixture(z, p_m, torch.ones_like(p_v))
    return _iwae(-kl - rec, iw, kl, rec)


# Draws of z, and slips


def _with_noise(sample, model, x, iw):
    *_, kl, rec = _weighted(model, x, iw, sample)
    return _iwae(-kl - rec, iw, kl, rec)


for (name, sentence), sample in WRONG_NOISE.items():
    mistake("iwae", name, "niwae.kl.rec", sentence)(functools.partial(_with_noise, sample))


@mistake("iwae", "not written", "niwae.kl.rec.gradient", "You return 0; write the function.")
def _(model, x, iw):
    return torch.zeros(3).unbind()


@mistake(
    "iwae",
    "rec is the mean of kl",
    "rec",
    "You return the mean of kl as rec; return the mean of rec.",
)
def _(model, x, iw):
    *_, kl, rec = _weighted(model, x, iw)
    return _iwae(-kl - rec, iw, kl, kl)


@mistake(
    "iwae",
    "terms weighted",
    "kl.rec",
    "You weight kl and rec by the importance weights; return their plain means.",
)
def _(model, x, iw):
    *_, kl, rec = _weighted(model, x, iw)
    shares = (-kl - rec).view(iw, -1).softmax(0)
    niwae, _kl, _rec = _iwae(-kl - rec, iw, kl, rec)
    return niwae, *((shares * term.view(iw, -1)).sum(0).mean() for term in (kl, rec))


@mistake(
    "iwae",
    "log-mean-exp of each term",
    "niwae.kl.rec",
    "You take the log-mean-exp of kl and of rec; take it of the log weights −(kl + rec).",
)
def _(model, x, iw):
    *_, kl, rec = _weighted(model, x, iw)
    return bound(-ut.log_mean_exp(-kl, 0), -ut.log_mean_exp(-rec, 0))


@mistake(
    "iwae",
    "axis found by its size",
    "niwae",
    "You look for the axis of the weights by its size; the rows are (m, batch), always.",
)
def _(model, x, iw):
    *_, kl, rec = _weighted(model, x, iw)
    log_weights = (-kl - rec).view(iw, len(x))
    axis = max(i for i, size in enumerate(log_weights.shape) if size == iw)
    return -ut.log_mean_exp(log_weights, axis).mean(), kl.mean(), rec.mean()
