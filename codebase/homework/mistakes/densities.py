"""Mistakes in densities and in drawing."""

import math

import torch

from codebase import utils as ut
from codebase.homework.mistakes.catalogue import mistake

LOG_2PI = math.log(2 * math.pi)

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
