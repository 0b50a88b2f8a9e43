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


@mistake(
    "sample",
    "variance as deviation",
    "draws",
    "You scale ε by v; scale it by √v, the standard deviation.",
)
def _(m, v):
    m, v, noise = _noise(m, v)
    return m + v * noise


@mistake(
    "sample",
    "variance as its logarithm",
    "draws",
    "You use v as a logarithm; v is the variance itself.",
)
def _(m, v):
    m, v, noise = _noise(m, v)
    return m + (v / 2).exp() * noise


@mistake(
    "sample",
    "variance as log deviation",
    "draws",
    "You exponentiate v; v is the variance itself, so use √v.",
)
def _(m, v):
    m, v, noise = _noise(m, v)
    return m + v.exp() * noise


@mistake(
    "sample", "square root twice", "draws", "You take the square root of v twice; scale ε by √v."
)
def _(m, v):
    m, v, noise = _noise(m, v)
    return m + v.sqrt().sqrt() * noise


@mistake(
    "sample",
    "uniform noise",
    "draws",
    "You draw ε with torch.rand, which is uniform; use torch.randn_like.",
)
def _(m, v):
    m, v = torch.broadcast_tensors(m, v)
    return m + v.sqrt() * torch.rand_like(m)


@mistake("sample", "no noise", "draws.gradient", "You return the mean; add the noise √v·ε.")
def _(m, v):
    return torch.broadcast_tensors(m, v)[0] + 0


@mistake("sample", "no mean", "draws.gradient", "You return only √v·ε; add the mean m.")
def _(m, v):
    m, v, noise = _noise(m, v)
    return v.sqrt() * noise


@mistake(
    "sample",
    "detached",
    "gradient",
    "You detach z, so nothing is learned; let gradients reach m and v.",
)
def _(m, v):
    m, v, noise = _noise(m, v)
    return (m + v.sqrt() * noise).detach()


@mistake(
    "sample",
    "detached variance",
    "gradient",
    "You detach √v, so the variance is not learned; let its gradient through.",
)
def _(m, v):
    m, v, noise = _noise(m, v)
    return m + v.sqrt().detach() * noise


@mistake(
    "sample",
    "noise shared by the batch",
    "draws",
    "You share ε between rows; draw one for every row.",
)
def _(m, v):
    m, v = torch.broadcast_tensors(m, v)
    return m + v.sqrt() * torch.randn(m.shape[-1], dtype=m.dtype)


@mistake(
    "sample",
    "noise shared by dimensions",
    "draws",
    "You share ε between dimensions; draw one for every dimension.",
)
def _(m, v):
    m, v = torch.broadcast_tensors(m, v)
    return m + v.sqrt() * torch.randn(*m.shape[:-1], 1, dtype=m.dtype)


@mistake(
    "sample",
    "one number as noise",
    "draws",
    "You draw one number as ε; draw one for every element.",
)
def _(m, v):
    m, v = torch.broadcast_tensors(m, v)
    return m + v.sqrt() * torch.randn(1, dtype=m.dtype)


@mistake(
    "sample",
    "seed set inside",
    "draws",
    "You set a seed inside the function; remove it, so each call draws new noise.",
)
def _(m, v):
    torch.manual_seed(0)
    m, v, noise = _noise(m, v)
    return m + v.sqrt() * noise


# log_normal


def _terms(x, m, v):
    return LOG_2PI + v.log() + (x - m) ** 2 / v


@mistake(
    "normal", "mean over dimensions", "values", "You average over the last dimension; sum over it."
)
def _(x, m, v):
    return -0.5 * _terms(x, m, v).mean(-1)


@mistake("normal", "no log 2π", "values", "You leave out −½ log 2π; add it for every dimension.")
def _(x, m, v):
    return -0.5 * (v.log() + (x - m) ** 2 / v).sum(-1)


@mistake("normal", "one log 2π", "values", "You add −½ log 2π once; add it for every dimension.")
def _(x, m, v):
    return -0.5 * (v.log() + (x - m) ** 2 / v).sum(-1) - 0.5 * LOG_2PI


@mistake("normal", "log 2π without ½", "values", "You use log 2π; the constant is ½ log 2π.")
def _(x, m, v):
    return -(LOG_2PI + 0.5 * v.log() + 0.5 * (x - m) ** 2 / v).sum(-1)


@mistake("normal", "log 2π added", "values", "You add ½ log 2π; subtract it.")
def _(x, m, v):
    return (0.5 * LOG_2PI - 0.5 * v.log() - 0.5 * (x - m) ** 2 / v).sum(-1)


@mistake("normal", "2π without log", "values", "You use ½·2π; take the logarithm, ½ log 2π.")
def _(x, m, v):
    return -0.5 * (2 * math.pi + v.log() + (x - m) ** 2 / v).sum(-1)


@mistake(
    "normal", "no log v", "values", "You leave out −½ log v; it normalizes the density, so add it."
)
def _(x, m, v):
    return -0.5 * (LOG_2PI + (x - m) ** 2 / v).sum(-1)


@mistake(
    "normal",
    "log v without ½",
    "values",
    "You use log v; use ½ log v, the log of the standard deviation.",
)
def _(x, m, v):
    return -(0.5 * LOG_2PI + v.log() + 0.5 * (x - m) ** 2 / v).sum(-1)


@mistake(
    "normal",
    "variance as deviation",
    "values",
    "You use v as the standard deviation; v is the variance.",
)
def _(x, m, v):
    return -(0.5 * LOG_2PI + v.log() + 0.5 * (x - m) ** 2 / v**2).sum(-1)


@mistake(
    "normal",
    "variance as its logarithm",
    "values",
    "You use v as a logarithm; v is the variance itself.",
)
def _(x, m, v):
    return -0.5 * (LOG_2PI + v + (x - m) ** 2 / v.exp()).sum(-1)


@mistake("normal", "divided by v squared", "values", "You divide (x − m)² by v²; divide it by v.")
def _(x, m, v):
    return -0.5 * (LOG_2PI + v.log() + (x - m) ** 2 / v**2).sum(-1)


@mistake(
    "normal", "quadratic term without ½", "values", "You leave out the ½ before (x − m)²/v; add it."
)
def _(x, m, v):
    return -(0.5 * LOG_2PI + 0.5 * v.log() + (x - m) ** 2 / v).sum(-1)


@mistake("normal", "no square", "values", "You do not square x − m; square it.")
def _(x, m, v):
    return -0.5 * (LOG_2PI + v.log() + (x - m) / v).sum(-1)


@mistake("normal", "sign", "values", "You return −log N; return log N.")
def _(x, m, v):
    return 0.5 * _terms(x, m, v).sum(-1)


@mistake(
    "normal",
    "density, not its logarithm",
    "values",
    "You return the density; return its logarithm.",
)
def _(x, m, v):
    return (-0.5 * _terms(x, m, v).sum(-1)).exp()


@mistake(
    "normal",
    "not summed",
    "values.shapes",
    "You return one number per dimension; sum over the last dimension.",
)
def _(x, m, v):
    return -0.5 * _terms(x, m, v)


@mistake(
    "normal",
    "summed over everything",
    "values.shapes",
    "You sum over everything; sum over only the last dimension.",
)
def _(x, m, v):
    return -0.5 * _terms(x, m, v).sum()


@mistake(
    "normal",
    "summed over the batch",
    "values.shapes",
    "You sum over the first dimension; sum over the last.",
)
def _(x, m, v):
    return -0.5 * _terms(x, m, v).sum(0)


@mistake(
    "normal",
    "averaged over the batch",
    "values.shapes",
    "You average over the batch; return one value per row.",
)
def _(x, m, v):
    return -0.5 * _terms(x, m, v).sum(-1).mean()


@mistake(
    "normal",
    "detached",
    "gradient",
    "You detach the result, so it has no gradient; let gradients through.",
)
def _(x, m, v):
    return -0.5 * _terms(x, m, v).sum(-1).detach()


# log_normal_mixture


def _components(z, m, v):
    return ut.log_normal(z.unsqueeze(1), m, v)


@mistake(
    "mixture",
    "mean of logarithms",
    "values",
    "You average the log densities; take the log of the mean density, a log-mean-exp.",
)
def _(z, m, v):
    return _components(z, m, v).mean(-1)


@mistake(
    "mixture",
    "sum of logarithms",
    "values",
    "You sum the log densities, which is a product; a mixture averages the densities.",
)
def _(z, m, v):
    return _components(z, m, v).sum(-1)


@mistake(
    "mixture",
    "no − log k",
    "values",
    "You leave out the weights 1/k; subtract log k from the log-sum-exp.",
)
def _(z, m, v):
    return _components(z, m, v).logsumexp(-1)


@mistake("mixture", "+ log k", "values", "You add log k; subtract it.")
def _(z, m, v):
    return _components(z, m, v).logsumexp(-1) + math.log(m.shape[1])


@mistake("mixture", "− log k twice", "values", "You subtract log k twice; subtract it once.")
def _(z, m, v):
    return _components(z, m, v).logsumexp(-1) - 2 * math.log(m.shape[1])


@mistake(
    "mixture",
    "log of dim, not of k",
    "values",
    "You subtract the log of the number of dimensions; subtract log k, k components.",
)
def _(z, m, v):
    return _components(z, m, v).logsumexp(-1) - math.log(m.shape[-1])


@mistake(
    "mixture",
    "unstable",
    "extreme values",
    "You exponentiate log densities, which underflow far away; use a log-sum-exp.",
)
def _(z, m, v):
    return _components(z, m, v).exp().mean(-1).log()


@mistake(
    "mixture",
    "clipped",
    "extreme values",
    "You add a small number inside the log, which rules far away; use a log-sum-exp.",
)
def _(z, m, v):
    return (_components(z, m, v).exp().mean(-1) + 1e-30).log()


@mistake(
    "mixture",
    "largest component",
    "values",
    "You take only the largest component; average all of them.",
)
def _(z, m, v):
    return _components(z, m, v).amax(-1)


@mistake(
    "mixture",
    "largest less log k",
    "values",
    "You take only the largest component, minus log k; average all of them.",
)
def _(z, m, v):
    return _components(z, m, v).amax(-1) - math.log(m.shape[1])


@mistake(
    "mixture",
    "first component",
    "values",
    "You take only the first component; average all of them.",
)
def _(z, m, v):
    return _components(z, m, v)[:, 0]


@mistake(
    "mixture",
    "wrong axis",
    "values.extreme values",
    "You average over the batch; average over the components, axis 1.",
)
def _(z, m, v):
    return ut.log_mean_exp(_components(z, m, v), 0)


@mistake(
    "mixture",
    "density, not its logarithm",
    "values",
    "You return the density; return its logarithm.",
)
def _(z, m, v):
    return _components(z, m, v).exp().mean(-1)


@mistake(
    "mixture",
    "one Gaussian",
    "values",
    "You average the means and variances into one Gaussian; average the densities.",
)
def _(z, m, v):
    return ut.log_normal(z, m.mean(1), v.mean(1))


@mistake(
    "mixture",
    "averaged over the batch",
    "values.extreme values",
    "You average over the batch; return one value per z.",
)
def _(z, m, v):
    return ut.log_mean_exp(_components(z, m, v), 1).mean()


@mistake("mixture", "sign", "values", "You return −log p(z); return log p(z).")
def _(z, m, v):
    return -ut.log_mean_exp(_components(z, m, v), 1)


@mistake(
    "mixture",
    "variances ignored",
    "values.gradient",
    "You ignore the variances; pass v to log_normal.",
)
def _(z, m, v):
    return ut.log_mean_exp(_components(z, m, torch.ones_like(v)), 1)


@mistake(
    "mixture",
    "detached",
    "gradient",
    "You detach the result, so the prior learns nothing; let gradients through.",
)
def _(z, m, v):
    return ut.log_mean_exp(_components(z, m, v), 1).detach()
