"""Mistakes in the ELBO of the VAE and of the GMVAE."""

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


def _terms(model, x, sample=ut.sample_gaussian):
    """KL and reconstruction term of each image, as they should be."""
    q_m, q_v, z = draw(model, x, sample=sample)
    return model.kl_to_prior(z, q_m, q_v), reconstruction(model, x, z)


OF_TERMS = {
    "sign of rec": lambda kl, rec: bound(kl, -rec),
    "sign of kl": lambda kl, rec: bound(-kl, rec),
    "sign of all": lambda kl, rec: bound(-kl, -rec),
    "sign of the bound": lambda kl, rec: (-bound(kl, rec)[0], *means(kl, rec)),
    "sign of rec returned": lambda kl, rec: (bound(kl, rec)[0], *means(kl, -rec)),
    "kl and rec left 0": lambda kl, rec: (bound(kl, rec)[0], *torch.zeros(2)),
    "kl and rec exchanged": lambda kl, rec: (bound(kl, rec)[0], *means(rec, kl)),
    "rec subtracted": lambda kl, rec: (bound(kl, -rec)[0], *means(kl, rec)),
    "kl subtracted": lambda kl, rec: (bound(-kl, rec)[0], *means(kl, rec)),
    "kl left out": lambda kl, rec: means(rec, kl, rec),
    "rec left out": lambda kl, rec: means(kl, kl, rec),
    "averaged over pixels": lambda kl, rec: bound(kl, rec / 784),
    "not averaged over the batch": lambda kl, rec: (kl + rec, kl, rec),
    "summed over the batch": lambda kl, rec: bound(kl * len(kl), rec * len(rec)),
    "kl summed over the batch": lambda kl, rec: bound(kl * len(kl), rec),
    "rec summed over the batch": lambda kl, rec: bound(kl, rec * len(rec)),
    "rec is the mean of kl": lambda kl, rec: bound(kl, kl),
    "without gradient": lambda kl, rec: bound(kl.detach(), rec.detach()),
    "half of kl in the bound": lambda kl, rec: (bound(kl / 2, rec)[0], *means(kl, rec)),
    "kl divided by the batch": lambda kl, rec: (bound(kl, rec)[0], *means(kl / len(kl), rec)),
    "sums returned": lambda kl, rec: (bound(kl, rec)[0], kl.sum(), rec.sum()),
    "terms not averaged": lambda kl, rec: (bound(kl, rec)[0], kl, rec),
}
enter("elbo", OF_TERMS, lambda run: lambda model, x: run(*_terms(model, x)))
enter("elbo", WRONG_NOISE, lambda sample: lambda model, x: bound(*_terms(model, x, sample)))
enter("elbo", {"not written": zeros(3)})


def _of_q(change):
    """Other parameters of q(z|x), for z or also for KL."""

    def other(model, x):
        q_m, q_v = model.enc.encode(x)
        m, v, also_kl = change(q_m, q_v)
        z = ut.sample_gaussian(m, v)
        kl = model.kl_to_prior(z, *((m, v) if also_kl else (q_m, q_v)))
        return bound(kl, reconstruction(model, x, z))

    return other


OF_Q = {
    "q(z|x) averaged over the batch": lambda m, v: (
        m.mean(0).expand_as(m),
        v.mean(0).expand_as(v),
        False,
    ),
    "exp of the variance": lambda m, v: (m, v.exp(), True),
}
enter("elbo", OF_Q, _of_q)


def _clipped(x, logits):
    p = logits.sigmoid().clamp(0.5, 1 - 1e-6)
    return -(x * p.log() + (1 - x) * (1 - p).log()).sum(-1)


def _bernoulli(x, logits):
    return -ut.log_bernoulli_with_logits(x, logits)


OF_LOGITS = {  # the reconstruction term
    "sigmoid twice": lambda x, logits: _bernoulli(x, logits.sigmoid()),
    "probabilities clipped": _clipped,
    "squared error": lambda x, logits: ((logits.sigmoid() - x) ** 2).sum(-1),
    "logits and images exchanged": lambda x, logits: _bernoulli(logits, x),
    "sampled reconstruction": lambda x, logits: _bernoulli(x, logits.sigmoid().bernoulli()),
}


def _with_reconstruction(run):
    def other(model, x):
        q_m, q_v, z = draw(model, x)
        return bound(model.kl_to_prior(z, q_m, q_v), run(x, model.dec.decode(z)))

    return other


enter("elbo", OF_LOGITS, _with_reconstruction)


def _exchanged_and_not_averaged(model, x):
    q_m, q_v, z = draw(model, x)
    kl, rec = model.kl_to_prior(z, q_m, q_v).mean(), _bernoulli(model.dec.decode(z), x)
    return kl + rec, kl, rec


enter("elbo", {"logits and images exchanged, not averaged": _exchanged_and_not_averaged})

# KL, and what the decoder is given
OF_Z = {
    "z is detached": lambda model, m, v, z: (model.kl_to_prior(z, m, v), z.detach()),
    "z from the prior": lambda model, m, v, z: (
        model.kl_to_prior(z, m, v),
        torch.randn_like(z),
    ),
    "z is the mean": lambda model, m, v, z: (model.kl_to_prior(m, m, v), m),
    "rec of the mean": lambda model, m, v, z: (model.kl_to_prior(z, m, v), m),
}
KL = {  # of the VAE
    "KL reversed": lambda model, m, v, z: ut.kl_normal(
        *(p.expand_as(z) for p in model.z_prior), m, v
    ),
    "KL averaged over dimensions": lambda model, m, v, z: (
        ut.kl_normal(m, v, *model.z_prior) / model.z_dim
    ),
    "KL without ½": lambda model, m, v, z: 2 * ut.kl_normal(m, v, *model.z_prior),
    "KL of the standard deviation": lambda model, m, v, z: ut.kl_normal(
        m, v.sqrt(), *model.z_prior
    ),
    "KL of the squared variance": lambda model, m, v, z: ut.kl_normal(m, v**2, *model.z_prior),
    "KL of the sample": lambda model, m, v, z: ut.kl_normal(z, v, *model.z_prior),
    "KL without its constant": lambda model, m, v, z: (
        ut.kl_normal(m, v, *model.z_prior) + 0.5 * model.z_dim
    ),
    "sign of kl at the draw": lambda model, m, v, z: log_standard(z) - ut.log_normal(z, m, v),
    "KL of the decoder's output": lambda model, m, v, z: ut.kl_normal(
        *ut.gaussian_parameters(model.dec.decode(z)), *model.z_prior
    ),
}


def _log_q_over(log_prior):
    return lambda model, m, v, z: ut.log_normal(z, m, v) - log_prior(model, z)


def _exp_for_softplus(model, z):
    p_m, h = model.z_pre.chunk(2, dim=1)
    return ut.log_normal_mixture(z, p_m, h.exp())


def _squared(model, z):
    p_m, h = model.z_pre.chunk(2, dim=1)
    return ut.log_normal_mixture(z, p_m, h**2)


def _one_component(model, m, v, z):
    k = torch.randint(model.k, (len(z),))
    return ut.kl_normal(m, v, *(p[0, k] for p in model.z_prior))


def _first_component(model, z):
    return ut.log_normal(z, *(p[:, 0] for p in model.z_prior))


def _ones(model, z):
    p_m, p_v = model.z_prior
    return ut.log_normal_mixture(z, p_m, torch.ones_like(p_v))


MIXTURE_KL = {
    "prior N(0, I)": _log_q_over(lambda model, z: log_standard(z)),
    "first component": _log_q_over(_first_component),
    "prior without − log k": _log_q_over(lambda model, z: model.log_p_z(z) + math.log(model.k)),
    "prior's variance ignored": _log_q_over(_ones),
    "z_pre unsplit": _log_q_over(_exp_for_softplus),
    "log p left out": lambda model, m, v, z: ut.log_normal(z, m, v),
    "prior's variance squared": _log_q_over(_squared),
    "prior averaged": lambda model, m, v, z: ut.kl_normal(
        m, v, *(p.mean(1) for p in model.z_prior)
    ),
    "log p of the mean": lambda model, m, v, z: ut.log_normal(z, m, v) - model.log_p_z(m),
    "log p summed over the batch": lambda model, m, v, z: (
        ut.log_normal(z, m, v) - model.log_p_z(z).sum()
    ),
    "one random component": _one_component,
    "log q left out": lambda model, m, v, z: -model.log_p_z(z),
    "q of the mean": lambda model, m, v, z: ut.log_normal(m, m, v) - model.log_p_z(z),
    "prior detached": _log_q_over(
        lambda model, z: ut.log_normal_mixture(z, *(p.detach() for p in model.z_prior))
    ),
    "KL to N(0, I)": lambda model, m, v, z: ut.kl_normal(
        m, v, torch.zeros_like(m), torch.ones_like(v)
    ),
    "mean of KLs": lambda model, m, v, z: ut.kl_normal(
        m.unsqueeze(1), v.unsqueeze(1), *model.z_prior
    ).mean(1),
}


def _with_z(run):
    def other(model, x):
        q = draw(model, x)
        kl, given = run(model, *q)
        return bound(kl, reconstruction(model, x, given))

    return other


enter("elbo", OF_Z, _with_z)
for kind, runs in (("vae", KL), ("gmvae", MIXTURE_KL)):
    enter(kind, runs, lambda run: _with_z(lambda model, m, v, z: (run(model, m, v, z), z)))
