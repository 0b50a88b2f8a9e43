"""Mistakes in the importance-weighted bounds."""

import math

import torch

from codebase import utils as ut
from codebase.homework.mistakes.catalogue import enter
from codebase.homework.mistakes.parts import (
    WRONG_NOISE,
    bound,
    draw,
    log_standard,
    means,
    reconstruction,
    zeros,
)


def _weighted(model, x, iw, sample=ut.sample_gaussian):
    """q's parameters and z of iw·batch rows, with log q − log p and −log p(x|z) of each."""
    q_m, q_v = (ut.duplicate(q, iw) for q in model.enc.encode(x))
    z = sample(q_m, q_v)
    kl = ut.log_normal(z, q_m, q_v) - model.log_p_z(z)
    return q_m, q_v, z, kl, reconstruction(model, ut.duplicate(x, iw), z)


def _niwae(log_weights, dim=0):
    """The right bound of log weights, (iw, batch)."""
    return -ut.log_mean_exp(log_weights, dim).mean()


def _of_weights(run):
    """A mistake made with kl and rec, each (iw, batch)."""

    def other(model, x, iw):
        *_, kl, rec = _weighted(model, x, iw)
        return run(kl.view(iw, -1), rec.view(iw, -1))

    return other


NIWAE = {  # of log weights, (iw, batch): the bound alone is wrong
    "no − log m": lambda w: -w.logsumexp(0).mean(),
    "− log m twice": lambda w: _niwae(w) + math.log(len(w)),
    "mean of logarithms": lambda w: -w.mean(),
    "rows the wrong way round": lambda w: _niwae(w.reshape(w.shape[1], len(w)), 1),
    "wrong axis": lambda w: _niwae(w, 1),
    "axis found by its size": lambda w: _niwae(w, max(i for i in (0, 1) if w.shape[i] == len(w))),
    "mean over everything": lambda w: -ut.log_mean_exp(w.flatten(), 0),
    "inverse weights": lambda w: _niwae(-w),
    "sign within": lambda w: -_niwae(-w),
    "sign of the bound": lambda w: -_niwae(w),
    "largest weight": lambda w: -w.amax(0).mean(),
    "weights clipped": lambda w: _niwae(w.clamp(min=-100)),
    "one weight": lambda w: -w[0].mean(),
    "rows of repeat_interleave": lambda w: _niwae(w.T.reshape(w.shape)),
    "weights of the whole batch": lambda w: -ut.log_mean_exp(w.mean(1), 0),
    "summed over the batch": lambda w: w.shape[1] * _niwae(w),
    "weighted mean of log weights": lambda w: -(w.softmax(0).detach() * w).sum(0).mean(),
}
enter(
    "iwae",
    NIWAE,
    lambda run: _of_weights(lambda kl, rec: (run(-kl - rec), *means(kl, rec))),
)


def _shares(kl, rec):
    return (-kl - rec).softmax(0)


OF_TERMS = {
    "weights of only rec": lambda kl, rec: (_niwae(-rec), *means(kl, rec)),
    "weights of only kl": lambda kl, rec: (_niwae(-kl), *means(kl, rec)),
    "sign of rec": lambda kl, rec: (_niwae(-kl + rec), *means(kl, -rec)),
    "sign of rec returned": lambda kl, rec: (_niwae(-kl - rec), *means(kl, -rec)),
    "kl and rec left 0": lambda kl, rec: (_niwae(-kl - rec), *torch.zeros(2)),
    "rec is the mean of kl": lambda kl, rec: (_niwae(-kl - rec), *means(kl, kl)),
    "averaged over pixels": lambda kl, rec: (_niwae(-kl - rec / 784), *means(kl, rec / 784)),
    "not averaged over the batch": lambda kl, rec: (
        -ut.log_mean_exp(-kl - rec, 0),
        kl.mean(0),
        rec.mean(0),
    ),
    "terms weighted": lambda kl, rec: (
        _niwae(-kl - rec),
        *means((_shares(kl, rec) * kl).sum(0), (_shares(kl, rec) * rec).sum(0)),
    ),
    "log-mean-exp of each term": lambda kl, rec: bound(
        -ut.log_mean_exp(-kl.flatten(), 0), -ut.log_mean_exp(-rec.flatten(), 0)
    ),
    "without gradient": lambda kl, rec: (_niwae(-kl - rec).detach(), *means(kl, rec)),
    "sign of kl": lambda kl, rec: (_niwae(kl - rec), *means(-kl, rec)),
    "log-mean-exp of each term per image": lambda kl, rec: (
        _niwae(-kl) + _niwae(-rec),
        *means(kl, rec),
    ),
    "kl and rec summed over the weights": lambda kl, rec: (
        _niwae(-kl - rec),
        *means(kl.sum(0), rec.sum(0)),
    ),
    "kl and rec exchanged": lambda kl, rec: (_niwae(-kl - rec), *means(rec, kl)),
    "rec divided by m": lambda kl, rec: (
        _niwae(-kl - rec / len(rec)),
        *means(kl, rec / len(rec)),
    ),
    "terms not averaged": lambda kl, rec: (_niwae(-kl - rec), kl.flatten(), rec.flatten()),
}
enter("iwae", OF_TERMS, _of_weights)
enter("iwae", {"not written": zeros(3)})


def _terms(kl, rec, iw):
    return _niwae((-kl - rec).view(iw, -1)), *means(kl, rec)


def _with_noise(sample):
    return lambda model, x, iw: _terms(*_weighted(model, x, iw, sample)[3:], iw)


enter("iwae", WRONG_NOISE, _with_noise)

# Functions of the model, q's parameters and z: wrong log weights without log p(x|z)
PRIOR_TERM = {
    "weights without q": lambda model, m, v, z: model.log_p_z(z),
    "weights without the prior": lambda model, m, v, z: -ut.log_normal(z, m, v),
}
CLOSED_FORM = {
    "closed-form KL in the weights": lambda model, m, v, z: -ut.kl_normal(m, v, *model.z_prior)
}


def _with_weights(run):
    def other(model, x, iw):
        m, v, z, kl, rec = _weighted(model, x, iw)
        return _niwae((run(model, m, v, z) - rec).view(iw, -1)), *means(kl, rec)

    return other


enter("iwae", PRIOR_TERM, _with_weights)
enter("vae iwae", CLOSED_FORM, _with_weights)


def _mean_of_elbos(model, x, iw):
    elbos = [model.negative_elbo_bound(x) for _ in range(iw)]
    return tuple(torch.stack(terms).mean() for terms in zip(*elbos, strict=True))


def _closed_form(model, x, iw):
    kl = ut.duplicate(ut.kl_normal(*model.enc.encode(x), *model.z_prior), iw)
    *_, rec = _weighted(model, x, iw)
    return _terms(kl, rec, iw)


enter(
    "vae iwae",
    {
        "mean of ELBOs": _mean_of_elbos,
        "closed-form KL in the weights and returned": _closed_form,
    },
)


def _ones(model, z):
    p_m, p_v = model.z_prior
    return ut.log_normal_mixture(z, p_m, torch.ones_like(p_v))


PRIORS = {  # log p(z)
    "prior N(0, I)": lambda model, z: log_standard(z),
    "prior without − log k": lambda model, z: model.log_p_z(z) + math.log(model.k),
    "prior's variance ignored": _ones,
    "prior averaged": lambda model, z: ut.log_normal(z, *(p.mean(1) for p in model.z_prior)),
}


def _with_prior(log_prior):
    def other(model, x, iw):
        m, v, z, _kl, rec = _weighted(model, x, iw)
        return _terms(ut.log_normal(z, m, v) - log_prior(model, z), rec, iw)

    return other


enter("gmvae iwae", PRIORS, _with_prior)


def _one_z(model, x, iw):
    q_m, q_v, z = draw(model, x)
    return bound(ut.log_normal(z, q_m, q_v) - model.log_p_z(z), reconstruction(model, x, z))


def _mean(model, x, iw):
    q_m, q_v = model.enc.encode(x)
    return bound(ut.log_normal(q_m, q_m, q_v) - model.log_p_z(q_m), reconstruction(model, x, q_m))


def _mismatched(model, x, iw):
    *_, z, kl, _rec = _weighted(model, x, iw)
    return _terms(kl, reconstruction(model, x.repeat_interleave(iw, 0), z), iw)


def _detached(model, x, iw):
    q_m, q_v, z, *_ = _weighted(model, x, iw)
    z = z.detach()
    kl = ut.log_normal(z, q_m, q_v) - model.log_p_z(z)
    return _terms(kl, reconstruction(model, ut.duplicate(x, iw), z), iw)


enter(
    "iwae",
    {
        "one z for all": _one_z,
        "z is the mean": _mean,
        "images and draws mismatched": _mismatched,
        "z is detached": _detached,
    },
)
