"""A catalogue of mistakes: what students write instead, and one sentence for each.

Each is a function that runs in the place of the right one; of a method, the model comes first. If a
submission's numbers equal a mistake's, its report says the sentence.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from codebase import utils as ut

LOG_2PI = math.log(2 * math.pi)


@dataclass(frozen=True)
class Mistake:
    """A mistake.

    Args:
        function: of which
        name: short, for tables
        sentence: for the student
        loses: the parts of the function's points that it loses
        run: what the student wrote
    """

    function: str
    name: str
    sentence: str
    loses: frozenset[str]
    run: Callable


MISTAKES: dict[str, list[Mistake]] = {}
FUNCTIONS = {
    "sample": ("sample_gaussian",),
    "normal": ("log_normal",),
    "mixture": ("log_normal_mixture",),
    "vae": ("VAE.negative_elbo_bound",),
    "gmvae": ("GMVAE.negative_elbo_bound",),
    "elbo": ("VAE.negative_elbo_bound", "GMVAE.negative_elbo_bound"),
    "iwae": ("VAE.negative_iwae_bound", "GMVAE.negative_iwae_bound"),
    "vae iwae": ("VAE.negative_iwae_bound",),
    "gmvae iwae": ("GMVAE.negative_iwae_bound",),
    "ssvae": ("SSVAE.negative_elbo_bound",),
    "fsvae": ("FSVAE.negative_elbo_bound",),
}


def mistake(functions: str, name: str, loses: str, sentence: str):
    """Enter a function in the catalogue.

    Args:
        functions: see `FUNCTIONS`
        name, sentence: see `Mistake`
        loses: parts, with "." between them; with "|" between the functions where those differ
    """

    def enter(run):
        for i, function in enumerate(FUNCTIONS[functions]):
            parts = frozenset(loses.split("|")[i if "|" in loses else 0].split("."))
            entry = Mistake(function, name, sentence, parts, run)
            MISTAKES.setdefault(function, []).append(entry)
        return run

    return enter


# sample_gaussian


def _noise(m, v):
    m, v = torch.broadcast_tensors(m, v)
    return m, v, torch.randn_like(m)


@mistake("sample", "variance as deviation", "draws", "v is the variance: ε is scaled by √v, not v.")
def _(m, v):
    m, v, noise = _noise(m, v)
    return m + v * noise


@mistake("sample", "variance as its logarithm", "draws", "v is the variance, not its logarithm.")
def _(m, v):
    m, v, noise = _noise(m, v)
    return m + (v / 2).exp() * noise


@mistake("sample", "variance as log deviation", "draws", "v is the variance; nothing is exp'd.")
def _(m, v):
    m, v, noise = _noise(m, v)
    return m + v.exp() * noise


@mistake("sample", "square root twice", "draws", "v needs one square root: √v, not √√v.")
def _(m, v):
    m, v, noise = _noise(m, v)
    return m + v.sqrt().sqrt() * noise


@mistake("sample", "uniform noise", "draws", "ε is normal, torch.randn; torch.rand is uniform.")
def _(m, v):
    m, v = torch.broadcast_tensors(m, v)
    return m + v.sqrt() * torch.rand_like(m)


@mistake("sample", "no noise", "draws.gradient", "z is the mean: the noise √v·ε is missing.")
def _(m, v):
    return torch.broadcast_tensors(m, v)[0] + 0


@mistake("sample", "no mean", "draws.gradient", "The mean m is missing from m + √v·ε.")
def _(m, v):
    m, v, noise = _noise(m, v)
    return v.sqrt() * noise


@mistake("sample", "detached", "gradient", "z is detached from m and v, so that nothing is learnt.")
def _(m, v):
    m, v, noise = _noise(m, v)
    return (m + v.sqrt() * noise).detach()


@mistake(
    "sample", "detached variance", "gradient", "√v is detached: no gradient reaches the variance."
)
def _(m, v):
    m, v, noise = _noise(m, v)
    return m + v.sqrt().detach() * noise


@mistake("sample", "noise shared by the batch", "draws", "Each row needs an ε of its own.")
def _(m, v):
    m, v = torch.broadcast_tensors(m, v)
    return m + v.sqrt() * torch.randn(m.shape[-1], dtype=m.dtype)


@mistake("sample", "noise shared by dimensions", "draws", "Each dimension needs an ε of its own.")
def _(m, v):
    m, v = torch.broadcast_tensors(m, v)
    return m + v.sqrt() * torch.randn(*m.shape[:-1], 1, dtype=m.dtype)


@mistake("sample", "one number as noise", "draws", "ε is one number here; each element needs one.")
def _(m, v):
    m, v = torch.broadcast_tensors(m, v)
    return m + v.sqrt() * torch.randn(1, dtype=m.dtype)


@mistake("sample", "seed set inside", "draws", "A seed is set inside: ε is the same at each call.")
def _(m, v):
    torch.manual_seed(0)
    m, v, noise = _noise(m, v)
    return m + v.sqrt() * noise


# log_normal


def _terms(x, m, v):
    return LOG_2PI + v.log() + (x - m) ** 2 / v


@mistake("normal", "mean over dimensions", "values", "Sum over the last dimension, not its mean.")
def _(x, m, v):
    return -0.5 * _terms(x, m, v).mean(-1)


@mistake("normal", "no log 2π", "values", "The constant −½ log 2π of each dimension is missing.")
def _(x, m, v):
    return -0.5 * (v.log() + (x - m) ** 2 / v).sum(-1)


@mistake("normal", "one log 2π", "values", "−½ log 2π belongs to each dimension, not to the sum.")
def _(x, m, v):
    return -0.5 * (v.log() + (x - m) ** 2 / v).sum(-1) - 0.5 * LOG_2PI


@mistake("normal", "log 2π without ½", "values", "The constant is ½ log 2π, not log 2π.")
def _(x, m, v):
    return -(LOG_2PI + 0.5 * v.log() + 0.5 * (x - m) ** 2 / v).sum(-1)


@mistake("normal", "log 2π added", "values", "½ log 2π is subtracted, not added.")
def _(x, m, v):
    return (0.5 * LOG_2PI - 0.5 * v.log() - 0.5 * (x - m) ** 2 / v).sum(-1)


@mistake("normal", "2π without log", "values", "The constant is ½ log 2π, not ½·2π.")
def _(x, m, v):
    return -0.5 * (2 * math.pi + v.log() + (x - m) ** 2 / v).sum(-1)


@mistake("normal", "no log v", "values", "−½ log v, which normalises the density, is missing.")
def _(x, m, v):
    return -0.5 * (LOG_2PI + (x - m) ** 2 / v).sum(-1)


@mistake("normal", "log v without ½", "values", "It is ½ log v: the deviation is √v.")
def _(x, m, v):
    return -(0.5 * LOG_2PI + v.log() + 0.5 * (x - m) ** 2 / v).sum(-1)


@mistake("normal", "variance as deviation", "values", "v is the variance, not the deviation.")
def _(x, m, v):
    return -(0.5 * LOG_2PI + v.log() + 0.5 * (x - m) ** 2 / v**2).sum(-1)


@mistake("normal", "variance as its logarithm", "values", "v is the variance, not its logarithm.")
def _(x, m, v):
    return -0.5 * (LOG_2PI + v + (x - m) ** 2 / v.exp()).sum(-1)


@mistake("normal", "divided by v squared", "values", "(x − m)² is divided by v, not by v².")
def _(x, m, v):
    return -0.5 * (LOG_2PI + v.log() + (x - m) ** 2 / v**2).sum(-1)


@mistake("normal", "quadratic term without ½", "values", "The ½ before (x − m)²/v is missing.")
def _(x, m, v):
    return -(0.5 * LOG_2PI + 0.5 * v.log() + (x - m) ** 2 / v).sum(-1)


@mistake("normal", "no square", "values", "(x − m) is to be squared.")
def _(x, m, v):
    return -0.5 * (LOG_2PI + v.log() + (x - m) / v).sum(-1)


@mistake("normal", "sign", "values", "The sign is wrong: this is −log N, not log N.")
def _(x, m, v):
    return 0.5 * _terms(x, m, v).sum(-1)


@mistake("normal", "density, not its logarithm", "values", "This is the density, not its log.")
def _(x, m, v):
    return (-0.5 * _terms(x, m, v).sum(-1)).exp()


@mistake(
    "normal",
    "not summed",
    "values.broadcasting.extreme values",
    "The sum over the last dimension is missing.",
)
def _(x, m, v):
    return -0.5 * _terms(x, m, v)


@mistake(
    "normal",
    "summed over everything",
    "values.broadcasting.extreme values",
    "Sum over the last dimension alone.",
)
def _(x, m, v):
    return -0.5 * _terms(x, m, v).sum()


@mistake(
    "normal",
    "summed over the batch",
    "values.broadcasting.extreme values",
    "Sum the last dimension, not the first.",
)
def _(x, m, v):
    return -0.5 * _terms(x, m, v).sum(0)


@mistake(
    "normal",
    "averaged over the batch",
    "values.broadcasting.extreme values",
    "Each row keeps its value.",
)
def _(x, m, v):
    return -0.5 * _terms(x, m, v).sum(-1).mean()


@mistake("normal", "detached", "gradient", "The result is detached: it has no gradient.")
def _(x, m, v):
    return -0.5 * _terms(x, m, v).sum(-1).detach()


@mistake(
    "normal", "variance clipped", "extreme values", "The variance is clipped from below inside."
)
def _(x, m, v):
    return -0.5 * _terms(x, m, v.clamp(min=1e-4)).sum(-1)


# log_normal_mixture


def _components(z, m, v):
    return ut.log_normal(z.unsqueeze(1), m, v)


@mistake(
    "mixture",
    "mean of logarithms",
    "values",
    "The mean is taken of the components' log densities; it is the log of the densities' mean.",
)
def _(z, m, v):
    return _components(z, m, v).mean(-1)


@mistake("mixture", "sum of logarithms", "values", "A mixture is no product.")
def _(z, m, v):
    return _components(z, m, v).sum(-1)


@mistake(
    "mixture",
    "no − log k",
    "values",
    "Each component has weight 1/k: − log k is missing after the log-sum-exp.",
)
def _(z, m, v):
    return _components(z, m, v).logsumexp(-1)


@mistake("mixture", "+ log k", "values", "log k is subtracted, not added.")
def _(z, m, v):
    return _components(z, m, v).logsumexp(-1) + math.log(m.shape[1])


@mistake("mixture", "− log k twice", "values", "log k is subtracted twice.")
def _(z, m, v):
    return _components(z, m, v).logsumexp(-1) - 2 * math.log(m.shape[1])


@mistake(
    "mixture",
    "log of dim, not of k",
    "values",
    "The log of the number of dimensions is subtracted, not of the number of components.",
)
def _(z, m, v):
    return _components(z, m, v).logsumexp(-1) - math.log(m.shape[-1])


@mistake(
    "mixture",
    "unstable",
    "extreme values",
    "exp of log densities underflows far from all components: use a log-sum-exp.",
)
def _(z, m, v):
    return _components(z, m, v).exp().mean(-1).log()


@mistake(
    "mixture", "clipped", "extreme values", "A small number is added in the log: far away it rules."
)
def _(z, m, v):
    return (_components(z, m, v).exp().mean(-1) + 1e-30).log()


@mistake("mixture", "largest component", "values", "The largest component alone.")
def _(z, m, v):
    return _components(z, m, v).amax(-1)


@mistake("mixture", "largest less log k", "values", "The largest component alone, less log k.")
def _(z, m, v):
    return _components(z, m, v).amax(-1) - math.log(m.shape[1])


@mistake("mixture", "first component", "values", "The first component alone.")
def _(z, m, v):
    return _components(z, m, v)[:, 0]


@mistake(
    "mixture",
    "wrong axis",
    "values.extreme values",
    "The log of the mean is taken over the batch, not over the components.",
)
def _(z, m, v):
    return ut.log_mean_exp(_components(z, m, v), 0)


@mistake("mixture", "density, not its logarithm", "values", "The log is missing.")
def _(z, m, v):
    return _components(z, m, v).exp().mean(-1)


@mistake(
    "mixture",
    "one Gaussian",
    "values",
    "The components' means and variances are averaged into one Gaussian.",
)
def _(z, m, v):
    return ut.log_normal(z, m.mean(1), v.mean(1))


@mistake("mixture", "averaged over the batch", "values.extreme values", "Each z keeps its value.")
def _(z, m, v):
    return ut.log_mean_exp(_components(z, m, v), 1).mean()


@mistake("mixture", "sign", "values", "The sign is wrong: this is −log p(z).")
def _(z, m, v):
    return -ut.log_mean_exp(_components(z, m, v), 1)


@mistake("mixture", "variances ignored", "values.gradient", "The variances are ignored.")
def _(z, m, v):
    return ut.log_mean_exp(_components(z, m, torch.ones_like(v)), 1)


@mistake("mixture", "detached", "gradient", "The result is detached: the prior learns nothing.")
def _(z, m, v):
    return ut.log_mean_exp(_components(z, m, v), 1).detach()


# Bounds: what they are made of


def _draw(model, x, *y):
    q_m, q_v = model.enc.encode(x, *y)
    return q_m, q_v, ut.sample_gaussian(q_m, q_v)


def _rec(model, x, z):
    return -ut.log_bernoulli_with_logits(x, model.dec.decode(z))


def _elbo(model, x):
    """KL and reconstruction term of each image, as they should be."""
    q_m, q_v, z = _draw(model, x)
    return model.kl_to_prior(z, q_m, q_v), _rec(model, x, z)


def _bound(kl, rec):
    kl, rec = kl.mean(), rec.mean()
    return kl + rec, kl, rec


@mistake("elbo", "sign of rec", "nelbo.rec", "The reconstruction term has the wrong sign.")
def _(model, x):
    kl, rec = _elbo(model, x)
    return _bound(kl, -rec)


@mistake("elbo", "sign of kl", "nelbo.kl", "KL has the wrong sign.")
def _(model, x):
    kl, rec = _elbo(model, x)
    return _bound(-kl, rec)


@mistake("elbo", "sign of all", "nelbo.kl.rec", "This is the ELBO and its terms, not the negative.")
def _(model, x):
    kl, rec = _elbo(model, x)
    return _bound(-kl, -rec)


@mistake("elbo", "sign of the bound", "nelbo", "This is the ELBO; the negative ELBO is wanted.")
def _(model, x):
    nelbo, kl, rec = _bound(*_elbo(model, x))
    return -nelbo, kl, rec


@mistake("elbo", "sign of rec returned", "rec", "The bound is right, but rec has the wrong sign.")
def _(model, x):
    nelbo, kl, rec = _bound(*_elbo(model, x))
    return nelbo, kl, -rec


@mistake("elbo", "kl and rec left 0", "kl.rec", "The bound is right, but kl and rec are left 0.")
def _(model, x):
    nelbo, kl, rec = _bound(*_elbo(model, x))
    return nelbo, 0 * kl.detach(), 0 * rec.detach()


@mistake("elbo", "kl and rec exchanged", "kl.rec", "kl and rec are returned in each other's place.")
def _(model, x):
    nelbo, kl, rec = _bound(*_elbo(model, x))
    return nelbo, rec, kl


@mistake("elbo", "kl left out", "nelbo|nelbo.gradient", "KL is missing from the bound.")
def _(model, x):
    nelbo, kl, rec = _bound(*_elbo(model, x))
    return rec, kl, rec


@mistake("elbo", "rec left out", "nelbo.gradient", "rec is missing from the bound.")
def _(model, x):
    nelbo, kl, rec = _bound(*_elbo(model, x))
    return kl, kl, rec


@mistake("elbo", "averaged over pixels", "nelbo.rec", "rec is a sum over pixels, not their mean.")
def _(model, x):
    kl, rec = _elbo(model, x)
    return _bound(kl, rec / x.shape[-1])


@mistake(
    "elbo", "not averaged over the batch", "nelbo.kl.rec", "The mean over the batch is missing."
)
def _(model, x):
    kl, rec = _elbo(model, x)
    return kl + rec, kl, rec


@mistake("elbo", "summed over the batch", "nelbo.kl.rec", "Average over the batch, do not sum.")
def _(model, x):
    kl, rec = _elbo(model, x)
    return _bound(kl * len(x), rec * len(x))


@mistake("elbo", "z is detached", "gradient", "z is detached: rec does not train the encoder.")
def _(model, x):
    q_m, q_v, z = _draw(model, x)
    return _bound(model.kl_to_prior(z, q_m, q_v), _rec(model, x, z.detach()))


@mistake("elbo", "without gradient", "gradient", "The bound is detached: it trains nothing.")
def _(model, x):
    return tuple(term.detach() for term in _bound(*_elbo(model, x)))


@mistake("elbo", "z from the prior", "nelbo.rec", "z is drawn from p(z), not from q(z|x).")
def _(model, x):
    q_m, q_v, z = _draw(model, x)
    z_p = torch.randn_like(z)
    return _bound(model.kl_to_prior(z, q_m, q_v), _rec(model, x, z_p))


@mistake("elbo", "sigmoid twice", "nelbo.rec", "The decoder gives logits: no sigmoid before it.")
def _(model, x):
    q_m, q_v, z = _draw(model, x)
    logits = model.dec.decode(z).sigmoid()
    return _bound(model.kl_to_prior(z, q_m, q_v), -ut.log_bernoulli_with_logits(x, logits))


@mistake("elbo", "probabilities clipped", "nelbo.rec", "Probabilities are clipped in the bound.")
def _(model, x):
    q_m, q_v, z = _draw(model, x)
    p = model.dec.decode(z).sigmoid().clamp(0.5, 1 - 1e-6)
    rec = -(x * p.log() + (1 - x) * (1 - p).log()).sum(-1)
    return _bound(model.kl_to_prior(z, q_m, q_v), rec)


@mistake(
    "elbo", "squared error", "nelbo.rec", "rec is −log p(x|z) of a Bernoulli, no squared error."
)
def _(model, x):
    q_m, q_v, z = _draw(model, x)
    rec = ((model.dec.decode(z).sigmoid() - x) ** 2).sum(-1)
    return _bound(model.kl_to_prior(z, q_m, q_v), rec)


@mistake(
    "elbo", "logits and images exchanged", "nelbo.rec", "The arguments x and logits, exchanged."
)
def _(model, x):
    q_m, q_v, z = _draw(model, x)
    rec = -ut.log_bernoulli_with_logits(model.dec.decode(z), x)
    return _bound(model.kl_to_prior(z, q_m, q_v), rec)


@mistake("vae", "z is the mean", "nelbo.rec", "z is q's mean: the draw from q(z|x) is missing.")
def _(model, x):
    q_m, q_v = model.enc.encode(x)
    return _bound(ut.kl_normal(q_m, q_v, *model.z_prior), _rec(model, x, q_m))


@mistake("vae", "KL reversed", "nelbo.kl", "This is KL(p ‖ q); KL(q ‖ p) is wanted.")
def _(model, x):
    q_m, q_v, z = _draw(model, x)
    p_m, p_v = (p.expand_as(z) for p in model.z_prior)
    return _bound(ut.kl_normal(p_m, p_v, q_m, q_v), _rec(model, x, z))


@mistake("vae", "KL averaged over dimensions", "nelbo.kl", "KL is a sum over the dimensions of z.")
def _(model, x):
    kl, rec = _elbo(model, x)
    return _bound(kl / model.z_dim, rec)


@mistake("vae", "KL without ½", "nelbo.kl", "The ½ of KL between Gaussians is missing.")
def _(model, x):
    kl, rec = _elbo(model, x)
    return _bound(2 * kl, rec)


@mistake("vae", "KL of the deviation", "nelbo.kl", "kl_normal is given √v; it wants variances.")
def _(model, x):
    q_m, q_v, z = _draw(model, x)
    return _bound(ut.kl_normal(q_m, q_v.sqrt(), *model.z_prior), _rec(model, x, z))


@mistake("vae", "KL of the squared variance", "nelbo.kl", "kl_normal is given v²; it wants v.")
def _(model, x):
    q_m, q_v, z = _draw(model, x)
    return _bound(ut.kl_normal(q_m, q_v**2, *model.z_prior), _rec(model, x, z))


@mistake("vae", "KL of the sample", "nelbo.kl", "KL is given z where it wants q's mean.")
def _(model, x):
    q_m, q_v, z = _draw(model, x)
    return _bound(ut.kl_normal(z, q_v, *model.z_prior), _rec(model, x, z))


@mistake(
    "gmvae", "z is the mean", "nelbo.kl.rec", "z is q's mean: the draw from q(z|x) is missing."
)
def _(model, x):
    q_m, q_v = model.enc.encode(x)
    return _bound(model.kl_to_prior(q_m, q_m, q_v), _rec(model, x, q_m))


@mistake("gmvae", "prior N(0, I)", "nelbo.kl.gradient", "The prior is the mixture, not N(0, I).")
def _(model, x):
    q_m, q_v, z = _draw(model, x)
    return _bound(ut.log_normal(z, q_m, q_v) - _standard(z), _rec(model, x, z))


@mistake(
    "gmvae",
    "KL to N(0, I)",
    "nelbo.kl.gradient",
    "The prior is the mixture; this is the VAE's KL to N(0, I).",
)
def _(model, x):
    q_m, q_v, z = _draw(model, x)
    zero, one = torch.zeros_like(q_m), torch.ones_like(q_v)
    return _bound(ut.kl_normal(q_m, q_v, zero, one), _rec(model, x, z))


def _standard(z):
    return ut.log_normal(z, torch.zeros_like(z), torch.ones_like(z))


@mistake(
    "gmvae",
    "mean of KLs",
    "nelbo.kl",
    "KL to a mixture is not the mean of the KLs to its components.",
)
def _(model, x):
    q_m, q_v, z = _draw(model, x)
    p_m, p_v = model.z_prior
    kl = ut.kl_normal(q_m.unsqueeze(1), q_v.unsqueeze(1), p_m, p_v).mean(1)
    return _bound(kl, _rec(model, x, z))


@mistake("gmvae", "first component", "nelbo.kl", "The prior is the first component alone.")
def _(model, x):
    q_m, q_v, z = _draw(model, x)
    p_m, p_v = model.z_prior
    kl = ut.log_normal(z, q_m, q_v) - ut.log_normal(z, p_m[:, 0], p_v[:, 0])
    return _bound(kl, _rec(model, x, z))


@mistake("gmvae", "prior without − log k", "nelbo.kl", "The mixture's weights 1/k are missing.")
def _(model, x):
    kl, rec = _elbo(model, x)
    return _bound(kl - math.log(model.k), rec)


@mistake("gmvae", "prior's variance ignored", "nelbo.kl", "The prior's variances are ignored.")
def _(model, x):
    q_m, q_v, z = _draw(model, x)
    p_m, p_v = model.z_prior
    prior = ut.log_normal_mixture(z, p_m, torch.ones_like(p_v))
    return _bound(ut.log_normal(z, q_m, q_v) - prior, _rec(model, x, z))


@mistake(
    "gmvae",
    "z_pre unsplit",
    "nelbo.kl",
    "z_pre's second half gives variances through softplus; here exp is used.",
)
def _(model, x):
    q_m, q_v, z = _draw(model, x)
    p_m, h = model.z_pre.chunk(2, dim=1)
    prior = ut.log_normal_mixture(z, p_m, h.exp())
    return _bound(ut.log_normal(z, q_m, q_v) - prior, _rec(model, x, z))


@mistake("gmvae", "log q left out", "nelbo.kl", "log q(z|x) is missing from KL.")
def _(model, x):
    q_m, q_v, z = _draw(model, x)
    return _bound(-model.log_p_z(z), _rec(model, x, z))


@mistake("gmvae", "log p left out", "nelbo.kl.gradient", "log p(z) is missing from KL.")
def _(model, x):
    q_m, q_v, z = _draw(model, x)
    return _bound(ut.log_normal(z, q_m, q_v), _rec(model, x, z))


@mistake("gmvae", "q of the mean", "nelbo.kl", "log q is taken at q's mean, not at the draw z.")
def _(model, x):
    q_m, q_v, z = _draw(model, x)
    return _bound(ut.log_normal(q_m, q_m, q_v) - model.log_p_z(z), _rec(model, x, z))


@mistake(
    "gmvae", "prior detached", "gradient", "The prior is detached: the mixture learns nothing."
)
def _(model, x):
    q_m, q_v, z = _draw(model, x)
    prior = ut.log_normal_mixture(z, *(p.detach() for p in model.z_prior))
    return _bound(ut.log_normal(z, q_m, q_v) - prior, _rec(model, x, z))


# Importance-weighted bounds


def _weighted(model, x, iw):
    """q's parameters and z of iw·batch rows, with log q − log p and −log p(x|z) of each."""
    q_m, q_v = (ut.duplicate(q, iw) for q in model.enc.encode(x))
    z = ut.sample_gaussian(q_m, q_v)
    kl = ut.log_normal(z, q_m, q_v) - model.log_p_z(z)
    return q_m, q_v, z, kl, _rec(model, ut.duplicate(x, iw), z)


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
    q_m, q_v, z = _draw(model, x)
    kl = ut.log_normal(z, q_m, q_v) - model.log_p_z(z)
    rec = _rec(model, x, z)
    return _bound(kl, rec)


@mistake(
    "iwae",
    "z is the mean",
    "niwae.kl.rec",
    "z is q's mean: the draws from q(z|x) are missing.",
)
def _(model, x, iw):
    q_m, q_v = model.enc.encode(x)
    kl = ut.log_normal(q_m, q_m, q_v) - model.log_p_z(q_m)
    return _bound(kl, _rec(model, x, q_m))


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
    rec = _rec(model, x.repeat_interleave(iw, 0), z)
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
    rec = _rec(model, ut.duplicate(x, iw), z)
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
    kl = ut.log_normal(z, q_m, q_v) - _standard(z)
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


# SSVAE


@dataclass
class _Labels:
    """What SSVAE's bound is made of: of each label and image, (label, batch)."""

    log_q_y: torch.Tensor  # (batch, label)
    q_m: torch.Tensor
    q_v: torch.Tensor
    z: torch.Tensor
    kl_z: torch.Tensor
    rec: torch.Tensor


def _labels(model, x, detach: bool = False, mean: bool = False) -> _Labels:
    log_q_y = F.log_softmax(model.cls.classify(x), -1)
    y = torch.eye(10).unsqueeze(1)
    q_m, q_v = model.enc.encode(x, y)
    z = ut.sample_gaussian(q_m, q_v)
    given = z.detach() if detach else q_m if mean else z
    rec = -ut.log_bernoulli_with_logits(x, model.dec.decode(given, y))
    return _Labels(log_q_y, q_m, q_v, z, ut.kl_normal(q_m, q_v, *model.z_prior), rec)


def _kl_y(log_q_y):
    return ut.kl_cat(log_q_y.exp(), log_q_y, -math.log(10)).mean()


def _expected(log_q_y, terms):
    return (log_q_y.exp().T * terms).sum(0).mean()


def _summed(kl_y, kl_z, rec):
    return kl_y + kl_z + rec, kl_z, kl_y, rec


def _parts(model, x):
    """(kl_y, kl_z, rec) as they should be, and what they are made of."""
    of = _labels(model, x)
    kl_z, rec = _expected(of.log_q_y, of.kl_z), _expected(of.log_q_y, of.rec)
    return _kl_y(of.log_q_y), kl_z, rec, of


@mistake("ssvae", "labels unweighted", "nelbo.kl_z.rec", "Labels weigh q(y|x), not 1/10 each.")
def _(model, x):
    kl_y, _kl_z, _rec, of = _parts(model, x)
    return _summed(kl_y, of.kl_z.mean(), of.rec.mean())


@mistake("ssvae", "labels summed", "nelbo.kl_z.rec", "Labels are summed without q(y|x).")
def _(model, x):
    kl_y, _kl_z, _rec, of = _parts(model, x)
    return _summed(kl_y, of.kl_z.sum(0).mean(), of.rec.sum(0).mean())


@mistake("ssvae", "kl_z unweighted", "nelbo.kl_z", "KL of z is to be weighted with q(y|x).")
def _(model, x):
    kl_y, _kl_z, rec, of = _parts(model, x)
    return _summed(kl_y, of.kl_z.mean(), rec)


@mistake("ssvae", "rec unweighted", "nelbo.rec", "rec is to be weighted with q(y|x).")
def _(model, x):
    kl_y, kl_z, _rec, of = _parts(model, x)
    return _summed(kl_y, kl_z, of.rec.mean())


@mistake(
    "ssvae",
    "weighted after the batch's mean",
    "nelbo.kl_z.rec",
    "q(y|x) is averaged over the batch before it weighs: each image has weights of its own.",
)
def _(model, x):
    kl_y, _kl_z, _rec, of = _parts(model, x)
    q_y = of.log_q_y.exp().mean(0)
    return _summed(kl_y, q_y @ of.kl_z.mean(1), q_y @ of.rec.mean(1))


@mistake(
    "ssvae", "mean over labels", "nelbo.kl_z.rec", "The weighted terms are summed, not averaged."
)
def _(model, x):
    kl_y, kl_z, rec, _of = _parts(model, x)
    return _summed(kl_y, kl_z / 10, rec / 10)


@mistake("ssvae", "likeliest label alone", "nelbo.kl_z.rec", "The sum is over all ten labels.")
def _(model, x):
    kl_y, _kl_z, _rec, of = _parts(model, x)
    one = F.one_hot(of.log_q_y.argmax(-1), 10).T
    return _summed(kl_y, (one * of.kl_z).sum(0).mean(), (one * of.rec).sum(0).mean())


@mistake(
    "ssvae",
    "rows the wrong way round",
    "nelbo.kl_z.rec",
    "duplicate repeats the whole batch: its rows are (label, batch), not (batch, label).",
)
def _(model, x):
    kl_y, _kl_z, _rec, of = _parts(model, x)
    q_y = of.log_q_y.exp()
    kl_z = (q_y * of.kl_z.reshape(len(x), 10)).sum(1).mean()
    return _summed(kl_y, kl_z, (q_y * of.rec.reshape(len(x), 10)).sum(1).mean())


@mistake(
    "ssvae",
    "images and labels mismatched",
    "nelbo.kl_z.rec",
    "Images are repeated one by one, labels in the same order: most pairs are missing.",
)
def _(model, x):
    log_q_y = F.log_softmax(model.cls.classify(x), -1)
    rows = ut.duplicate(x, 10)
    y = ut.duplicate(torch.eye(10), len(x))
    q_m, q_v, z = _draw(model, rows, y)
    kl_z = ut.kl_normal(q_m, q_v, *model.z_prior).view(10, -1)
    rec = -ut.log_bernoulli_with_logits(rows, model.dec.decode(z, y)).view(10, -1)
    return _summed(_kl_y(log_q_y), _expected(log_q_y, kl_z), _expected(log_q_y, rec))


@mistake(
    "ssvae", "entropy for kl_y", "nelbo.kl_y", "The uniform prior's log p(y) is missing in kl_y."
)
def _(model, x):
    _kl_y_right, kl_z, rec, of = _parts(model, x)
    return _summed((of.log_q_y.exp() * of.log_q_y).sum(-1).mean(), kl_z, rec)


@mistake("ssvae", "0.1 for log 0.1", "nelbo.kl_y", "kl_cat wants log p(y) = log 0.1, not 0.1.")
def _(model, x):
    _kl_y_right, kl_z, rec, of = _parts(model, x)
    return _summed(ut.kl_cat(of.log_q_y.exp(), of.log_q_y, 0.1).mean(), kl_z, rec)


@mistake("ssvae", "sign of log p(y)", "nelbo.kl_y", "log p(y) is log 0.1, not log 10.")
def _(model, x):
    _kl_y_right, kl_z, rec, of = _parts(model, x)
    return _summed(ut.kl_cat(of.log_q_y.exp(), of.log_q_y, math.log(10)).mean(), kl_z, rec)


@mistake("ssvae", "KL of y reversed", "nelbo.kl_y", "This is KL(p ‖ q) of y; KL(q ‖ p) is wanted.")
def _(model, x):
    _kl_y_right, kl_z, rec, of = _parts(model, x)
    kl_y = (-math.log(10) - of.log_q_y).mean(-1).mean()
    return _summed(kl_y, kl_z, rec)


@mistake("ssvae", "KL of y averaged", "nelbo.kl_y", "kl_y is a sum over labels, not their mean.")
def _(model, x):
    kl_y, kl_z, rec, _of = _parts(model, x)
    return _summed(kl_y / 10, kl_z, rec)


@mistake("ssvae", "kl_y left out", "nelbo", "KL of y is missing from the bound.")
def _(model, x):
    kl_y, kl_z, rec, _of = _parts(model, x)
    return kl_z + rec, kl_z, kl_y, rec


@mistake("ssvae", "kl_z left out", "nelbo", "KL of z is missing from the bound.")
def _(model, x):
    kl_y, kl_z, rec, _of = _parts(model, x)
    return kl_y + rec, kl_z, kl_y, rec


@mistake("ssvae", "sign of kl_y", "nelbo.kl_y", "KL of y has the wrong sign.")
def _(model, x):
    kl_y, kl_z, rec, _of = _parts(model, x)
    return _summed(-kl_y, kl_z, rec)


@mistake("ssvae", "sign of kl_z", "nelbo.kl_z", "KL of z has the wrong sign.")
def _(model, x):
    kl_y, kl_z, rec, _of = _parts(model, x)
    return _summed(kl_y, -kl_z, rec)


@mistake("ssvae", "sign of rec", "nelbo.rec", "The reconstruction term has the wrong sign.")
def _(model, x):
    kl_y, kl_z, rec, _of = _parts(model, x)
    return _summed(kl_y, kl_z, -rec)


@mistake("ssvae", "sign of rec returned", "rec", "The bound is right, but rec has the wrong sign.")
def _(model, x):
    nelbo, kl_z, kl_y, rec = _summed(*_parts(model, x)[:3])
    return nelbo, kl_z, kl_y, -rec


@mistake("ssvae", "sign of the bound", "nelbo", "This is the ELBO; the negative ELBO is wanted.")
def _(model, x):
    nelbo, *terms = _summed(*_parts(model, x)[:3])
    return -nelbo, *terms


@mistake("ssvae", "terms left 0", "kl_z.kl_y.rec", "The bound is right, but its terms are left 0.")
def _(model, x):
    nelbo, *terms = _summed(*_parts(model, x)[:3])
    return nelbo, *(0 * term.detach() for term in terms)


@mistake("ssvae", "kl_z and kl_y exchanged", "kl_z.kl_y", "kl_z and kl_y, in each other's place.")
def _(model, x):
    nelbo, kl_z, kl_y, rec = _summed(*_parts(model, x)[:3])
    return nelbo, kl_y, kl_z, rec


@mistake("ssvae", "KL of z reversed", "nelbo.kl_z", "This is KL(p ‖ q) of z; KL(q ‖ p) is wanted.")
def _(model, x):
    kl_y, _kl_z, rec, of = _parts(model, x)
    p_m, p_v = (p.expand_as(of.z) for p in model.z_prior)
    return _summed(kl_y, _expected(of.log_q_y, ut.kl_normal(p_m, p_v, of.q_m, of.q_v)), rec)


@mistake("ssvae", "averaged over pixels", "nelbo.rec", "rec is a sum over pixels, not their mean.")
def _(model, x):
    kl_y, kl_z, rec, _of = _parts(model, x)
    return _summed(kl_y, kl_z, rec / 784)


@mistake("ssvae", "z is the mean", "nelbo.rec", "z is q's mean: the draw from q(z|x,y) is missing.")
def _(model, x):
    of = _labels(model, x, mean=True)
    kl_z, rec = _expected(of.log_q_y, of.kl_z), _expected(of.log_q_y, of.rec)
    return _summed(_kl_y(of.log_q_y), kl_z, rec)


@mistake("ssvae", "q(y|x) detached", "gradient", "q(y|x) is detached: rec does not train it.")
def _(model, x):
    of = _labels(model, x)
    q_y = of.log_q_y.detach()
    return _summed(_kl_y(of.log_q_y), _expected(q_y, of.kl_z), _expected(q_y, of.rec))


@mistake("ssvae", "z is detached", "gradient", "z is detached: rec does not train the encoder.")
def _(model, x):
    of = _labels(model, x, detach=True)
    kl_z, rec = _expected(of.log_q_y, of.kl_z), _expected(of.log_q_y, of.rec)
    return _summed(_kl_y(of.log_q_y), kl_z, rec)


@mistake("ssvae", "without gradient", "gradient", "The bound is detached: it trains nothing.")
def _(model, x):
    return tuple(term.detach() for term in _summed(*_parts(model, x)[:3]))


@mistake(
    "ssvae",
    "softmax over the batch",
    "nelbo.kl_z.kl_y.rec",
    "The softmax is over the batch, not over the labels.",
)
def _(model, x):
    of = _labels(model, x)
    log_q_y = F.log_softmax(model.cls.classify(x), 0)
    return _summed(_kl_y(log_q_y), _expected(log_q_y, of.kl_z), _expected(log_q_y, of.rec))


@mistake(
    "ssvae",
    "sigmoid for softmax",
    "nelbo.kl_z.kl_y.rec",
    "q(y|x) is the softmax of the logits; sigmoids do not add up to 1.",
)
def _(model, x):
    of = _labels(model, x)
    log_q_y = F.logsigmoid(model.cls.classify(x))
    return _summed(_kl_y(log_q_y), _expected(log_q_y, of.kl_z), _expected(log_q_y, of.rec))


@mistake(
    "ssvae",
    "not averaged over the batch",
    "nelbo.kl_z.kl_y.rec",
    "The mean over the batch is missing.",
)
def _(model, x):
    of = _labels(model, x)
    q_y = of.log_q_y.exp().T
    kl_y = ut.kl_cat(of.log_q_y.exp(), of.log_q_y, -math.log(10))
    return _summed(kl_y, (q_y * of.kl_z).sum(0), (q_y * of.rec).sum(0))


# FSVAE


def _coloured(model, x, y, variance: float = 0.1):
    """KL and reconstruction term of each image; z and the decoder's mean."""
    q_m, q_v, z = _draw(model, x, y)
    mean = model.dec.decode(z, y)
    rec = -ut.log_normal(x, mean, torch.tensor([variance]))
    return ut.kl_normal(q_m, q_v, *model.z_prior), rec, z, mean


def _with_variance(variance):
    return lambda model, x, y: _bound(*_coloured(model, x, y, variance)[:2])


mistake("fsvae", "0.1 as deviation", "nelbo.rec", "0.1 is the variance; 0.1² is used.")(
    _with_variance(0.01)
)
mistake("fsvae", "√0.1 as variance", "nelbo.rec", "0.1 is the variance, not its square.")(
    _with_variance(0.1**0.5)
)
mistake("fsvae", "variance 1", "nelbo.rec", "p(x|y, z) has variance 0.1; 1 is used.")(
    _with_variance(1.0)
)


@mistake("fsvae", "Bernoulli", "nelbo.rec", "p(x|y, z) is N(μ, 0.1·I), not Bernoulli.")
def _(model, x, y):
    kl, _rec, _z, mean = _coloured(model, x, y)
    return _bound(kl, -ut.log_bernoulli_with_logits(x, mean))


@mistake(
    "fsvae", "squared error", "nelbo.rec", "rec is −log N(x; μ, 0.1·I), not the squared error."
)
def _(model, x, y):
    kl, _rec, _z, mean = _coloured(model, x, y)
    return _bound(kl, ((x - mean) ** 2).sum(-1))


@mistake("fsvae", "no log 2π", "nelbo.rec", "The constants of log N(x; μ, 0.1·I) are missing.")
def _(model, x, y):
    kl, _rec, _z, mean = _coloured(model, x, y)
    return _bound(kl, ((x - mean) ** 2).sum(-1) / 0.2)


@mistake("fsvae", "sigmoid on the mean", "nelbo.rec", "The decoder gives μ itself: no sigmoid.")
def _(model, x, y):
    kl, _rec, _z, mean = _coloured(model, x, y)
    return _bound(kl, -ut.log_normal(x, mean.sigmoid(), torch.tensor([0.1])))


@mistake("fsvae", "mean clipped", "nelbo.rec", "The decoder's mean is clipped to [0, 1].")
def _(model, x, y):
    kl, _rec, _z, mean = _coloured(model, x, y)
    return _bound(kl, -ut.log_normal(x, mean.clamp(0, 1), torch.tensor([0.1])))


@mistake("fsvae", "averaged over pixels", "nelbo.rec", "rec is a sum over pixels, not their mean.")
def _(model, x, y):
    kl, rec, *_ = _coloured(model, x, y)
    return _bound(kl, rec / x.shape[-1])


@mistake("fsvae", "sign of rec", "nelbo.rec", "The reconstruction term has the wrong sign.")
def _(model, x, y):
    kl, rec, *_ = _coloured(model, x, y)
    return _bound(kl, -rec)


@mistake("fsvae", "sign of rec returned", "rec", "The bound is right, but rec has the wrong sign.")
def _(model, x, y):
    nelbo, kl, rec = _bound(*_coloured(model, x, y)[:2])
    return nelbo, kl, -rec


@mistake("fsvae", "sign of the bound", "nelbo", "This is the ELBO; the negative ELBO is wanted.")
def _(model, x, y):
    nelbo, kl, rec = _bound(*_coloured(model, x, y)[:2])
    return -nelbo, kl, rec


@mistake("fsvae", "kl left out", "nelbo", "KL is missing from the bound.")
def _(model, x, y):
    _nelbo, kl, rec = _bound(*_coloured(model, x, y)[:2])
    return rec, kl, rec


@mistake("fsvae", "kl and rec left 0", "kl_z.rec", "The bound is right, but kl and rec are left 0.")
def _(model, x, y):
    nelbo, kl, rec = _bound(*_coloured(model, x, y)[:2])
    return nelbo, 0 * kl.detach(), 0 * rec.detach()


@mistake("fsvae", "KL reversed", "nelbo.kl_z", "This is KL(p ‖ q); KL(q ‖ p) is wanted.")
def _(model, x, y):
    q_m, q_v, z = _draw(model, x, y)
    p_m, p_v = (p.expand_as(z) for p in model.z_prior)
    rec = -ut.log_normal(x, model.dec.decode(z, y), torch.tensor([0.1]))
    return _bound(ut.kl_normal(p_m, p_v, q_m, q_v), rec)


@mistake("fsvae", "labels ignored", "nelbo.kl_z.rec", "y is not given to the networks.")
def _(model, x, y):
    return _bound(*_coloured(model, x, torch.zeros_like(y))[:2])


@mistake("fsvae", "z is the mean", "nelbo.rec", "z is q's mean: the draw from q(z|x,y) is missing.")
def _(model, x, y):
    q_m, q_v = model.enc.encode(x, y)
    rec = -ut.log_normal(x, model.dec.decode(q_m, y), torch.tensor([0.1]))
    return _bound(ut.kl_normal(q_m, q_v, *model.z_prior), rec)


@mistake("fsvae", "z is detached", "gradient", "z is detached: rec does not train the encoder.")
def _(model, x, y):
    q_m, q_v, z = _draw(model, x, y)
    rec = -ut.log_normal(x, model.dec.decode(z.detach(), y), torch.tensor([0.1]))
    return _bound(ut.kl_normal(q_m, q_v, *model.z_prior), rec)


@mistake("fsvae", "without gradient", "gradient", "The bound is detached: it trains nothing.")
def _(model, x, y):
    return tuple(term.detach() for term in _bound(*_coloured(model, x, y)[:2]))


@mistake("fsvae", "not averaged over the batch", "nelbo.kl_z.rec", "The batch's mean is missing.")
def _(model, x, y):
    kl, rec, *_ = _coloured(model, x, y)
    return kl + rec, kl, rec


@functools.cache
def count() -> int:
    """How many mistakes there are."""
    return sum(map(len, MISTAKES.values()))
