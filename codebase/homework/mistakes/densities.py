"""Mistakes in densities and in sampling."""

import math

import torch

from codebase import utils as ut
from codebase.homework.mistakes import WRONG_NOISE, enter

LOG_2PI = math.log(2 * math.pi)


def _seeded(m, v):
    torch.manual_seed(0)
    return m + v.sqrt() * torch.randn_like(m)


SAMPLE = {
    **WRONG_NOISE,
    "You use v as a logarithm; use v itself, which is the variance.":
        lambda m, v: m + (v / 2).exp() * torch.randn_like(m),
    "You exponentiate v; use √v, because v is the variance itself.":
        lambda m, v: m + v.exp() * torch.randn_like(m),
    "You take the square root of v twice; scale ε by √v.":
        lambda m, v: m + v.sqrt().sqrt() * torch.randn_like(m),
    "You draw ε with torch.rand, which is uniform; use torch.randn_like.":
        lambda m, v: m + v.sqrt() * torch.rand_like(m),
    "You return the mean; add the noise √v·ε.":
        lambda m, v: m + 0,
    "You return only √v·ε; add the mean m.":
        lambda m, v: v.sqrt() * torch.randn_like(m),
    "You detach z, so nothing is learned; let gradients reach m and v.":
        lambda m, v: (m + v.sqrt() * torch.randn_like(m)).detach(),
    "You detach √v, so the variance is not learned; let its gradient through.":
        lambda m, v: m + v.sqrt().detach() * torch.randn_like(m),
    "You set a seed inside the function; remove it, so each call draws new noise.":
        _seeded,
}
enter("sample_gaussian", SAMPLE, lambda run: lambda m, v: run(*torch.broadcast_tensors(m, v)))


def _terms(x, m, v):
    return LOG_2PI + v.log() + _square(x, m, v)


def _square(x, m, v):
    return (x - m) ** 2 / v


NORMAL = {
    "You write / 2 * v, which multiplies by v; write / (2 * v).":
        lambda x, m, v: (-0.5 * (LOG_2PI + v.log()) - (x - m) ** 2 / 2 * v).sum(-1),
    "You use 3.14 for π; use math.pi.":
        lambda x, m, v: -0.5 * (math.log(6.28) + v.log() + _square(x, m, v)).sum(-1),
    "You take the number of dimensions from axis 1; take it from the last axis, -1.":
        lambda x, m, v: (
            -0.5 * (v.log() + _square(x, m, v)).sum(-1) - 0.5 * x.shape[1] * LOG_2PI),
    "You average over the last dimension; sum over it.":
        lambda x, m, v: -0.5 * _terms(x, m, v).mean(-1),
    "You leave out −½ log 2π; add it for every dimension.":
        lambda x, m, v: -0.5 * (v.log() + _square(x, m, v)).sum(-1),
    "You add −½ log 2π once; add it for every dimension.":
        lambda x, m, v: -0.5 * (v.log() + _square(x, m, v)).sum(-1) - 0.5 * LOG_2PI,
    "You use log 2π; use ½ log 2π.":
        lambda x, m, v: -(LOG_2PI + (v.log() + _square(x, m, v)) / 2).sum(-1),
    "You add ½ log 2π; subtract it.":
        lambda x, m, v: (LOG_2PI - v.log() - _square(x, m, v)).sum(-1) / 2,
    "You use ½·2π; take the logarithm, ½ log 2π.":
        lambda x, m, v: -0.5 * (2 * math.pi + v.log() + _square(x, m, v)).sum(-1),
    "You leave out −½ log v; it normalises the density, so add it.":
        lambda x, m, v: -0.5 * (LOG_2PI + _square(x, m, v)).sum(-1),
    "You use log v; use ½ log v, the log of the standard deviation.":
        lambda x, m, v: -0.5 * (_terms(x, m, v) + v.log()).sum(-1),
    "You use v as the standard deviation; use √v, because v is the variance.":
        lambda x, m, v: -0.5 * _terms(x, m, v**2).sum(-1),
    "You use v as a logarithm; use v itself, which is the variance.":
        lambda x, m, v: -0.5 * _terms(x, m, v.exp()).sum(-1),
    "You divide (x − m)² by v²; divide it by v.":
        lambda x, m, v: (-0.5 * (LOG_2PI + v.log() + _square(x, m, v**2)).sum(-1)),
    "You leave out the ½ before (x − m)²/v; add it.":
        lambda x, m, v: -0.5 * (_terms(x, m, v) + _square(x, m, v)).sum(-1),
    "You do not square x − m; square it.":
        lambda x, m, v: -0.5 * (LOG_2PI + v.log() + (x - m) / v).sum(-1),
    "You return −log N; return log N.":
        lambda x, m, v: 0.5 * _terms(x, m, v).sum(-1),
    "You return the density; return its logarithm.":
        lambda x, m, v: (-0.5 * _terms(x, m, v).sum(-1)).exp(),
    "You return one number per dimension; sum over the last dimension.":
        lambda x, m, v: -0.5 * _terms(x, m, v),
    "You sum over everything; sum over only the last dimension.":
        lambda x, m, v: -0.5 * _terms(x, m, v).sum(),
    "You sum over the first dimension; sum over the last.":
        lambda x, m, v: -0.5 * _terms(x, m, v).sum(0),
    "You average over the batch; return one value per row.":
        lambda x, m, v: -0.5 * _terms(x, m, v).sum(-1).mean(),
    "You detach the result, so it has no gradient; let gradients through.":
        lambda x, m, v: -0.5 * _terms(x, m, v).sum(-1).detach(),
    "You add ½ (x − m)²/v; subtract it.":
        lambda x, m, v: (-0.5 * (LOG_2PI + v.log() - _square(x, m, v)).sum(-1)),
    "You multiply log 2π by the batch size; multiply it by the number of dimensions.":
        lambda x, m, v: (-0.5 * (v.log() + _square(x, m, v)).sum(-1) - 0.5 * len(x) * LOG_2PI),
    "You add a small number to v; use v itself.":
        lambda x, m, v: (-0.5 * (LOG_2PI + v.log() + (x - m) ** 2 / (v + 1e-3)).sum(-1)),
    "You use the logarithm to base 10; use the natural logarithm.":
        lambda x, m, v: -0.5 * (LOG_2PI / math.log(10) + v.log10() + _square(x, m, v)).sum(-1),
    "You leave out the ½ before log 2πv; add it.":
        lambda x, m, v: -(LOG_2PI + v.log() + _square(x, m, v) / 2).sum(-1),
    "You sum over axis 1; sum over the last axis, -1.":
        lambda x, m, v: -0.5 * _terms(x, m, v).sum(1),
    "You take the log of the sum of v; sum the logs.":
        lambda x, m, v: (-0.5 * ((LOG_2PI + _square(x, m, v)).sum(-1) + v.sum(-1).log())),
}
enter("log_normal", NORMAL)

# Functions of the components' log densities, (batch, mix), and of the sizes (mix, dim)
OF_COMPONENTS = {
    "You subtract log 500; subtract log k, with k from m's shape.":
        lambda parts, size: parts.logsumexp(-1) - math.log(500),
    "You average the log densities; take the log of the mean density, a log-mean-exp.":
        lambda parts, size: parts.mean(-1),
    "You sum the log densities; take the log of the mean density, a log-mean-exp.":
        lambda parts, size: parts.sum(-1),
    "You leave out the weights 1/k; subtract log k from the log-sum-exp.":
        lambda parts, size: parts.logsumexp(-1),
    "You add log k; subtract it.":
        lambda parts, size: parts.logsumexp(-1) + math.log(size[0]),
    "You subtract log k twice; subtract it once.":
        lambda parts, size: parts.logsumexp(-1) - 2 * math.log(size[0]),
    "You subtract the log of the number of dimensions; subtract log k, of the components.":
        lambda parts, size: parts.logsumexp(-1) - math.log(size[1]),
    "You exponentiate log densities, so they underflow far from the components; use a log-sum-exp.":
        lambda parts, size: parts.exp().mean(-1).log(),
    "You add a small number inside the log, which dominates far away; use a log-sum-exp.":
        lambda parts, size: (parts.exp().mean(-1) + 1e-30).log(),
    "You take only the largest component; average all of them.":
        lambda parts, size: parts.amax(-1),
    "You take only the largest component, minus log k; average all of them.":
        lambda parts, size: parts.amax(-1) - math.log(size[0]),
    "You take only the first component; average all of them.":
        lambda parts, size: parts[:, 0],
    "You average over the batch; average over the components, axis 1.":
        lambda parts, size: ut.log_mean_exp(parts, 0),
    "You return the density; return its logarithm.":
        lambda parts, size: parts.exp().mean(-1),
    "You average over the batch; return one value per z.":
        lambda parts, size: ut.log_mean_exp(parts, 1).mean(),
    "You return −log p(z); return log p(z).":
        lambda parts, size: -ut.log_mean_exp(parts, 1),
    "You detach the result, so the prior learns nothing; let gradients through.":
        lambda parts, size: ut.log_mean_exp(parts, 1).detach(),
    "You subtract the log of the batch size; subtract log k.":
        lambda parts, size: parts.logsumexp(1) - math.log(len(parts)),
    "You divide the log-sum-exp by k; subtract log k.":
        lambda parts, size: parts.logsumexp(1) / size[0],
    "You weight log densities by their softmax; take the log of the mean density.":
        lambda parts, size: (parts.softmax(1) * parts).sum(1),
    "You do not add the largest log density back; add it after the log.":
        lambda parts, size: ((parts - parts.amax(1, keepdim=True)).exp().mean(1).log()),
    "You subtract the smallest log density before exp; subtract the largest.":
        lambda parts, size: (
            (parts - parts.amin(1, keepdim=True)).exp().mean(1).log() + parts.amin(1)),
    "You sum the densities without a log-sum-exp; use one, and subtract log k.":
        lambda parts, size: parts.exp().sum(1).log(),
}
MIXTURE = {
    "You average the means and variances into one Gaussian; average the densities.":
        lambda z, m, v: ut.log_normal(z, m.mean(1), v.mean(1)),
    "You ignore the variances; pass v to log_normal.":
        lambda z, m, v: ut.log_normal_mixture(z, m, torch.ones_like(v)),
    "You pass √v as the variance; pass v.":
        lambda z, m, v: ut.log_normal_mixture(z, m, v.sqrt()),
    "You repeat z with duplicate and reshape; use z.unsqueeze(1).":
        lambda z, m, v: ut.log_mean_exp(
            ut.log_normal(ut.duplicate(z, m.shape[1]).reshape(-1, *m.shape[1:]), m, v), 1),
}
enter(
    "log_normal_mixture",
    OF_COMPONENTS,
    lambda run: lambda z, m, v: run(ut.log_normal(z.unsqueeze(1), m, v), m.shape[1:]),
)
enter("log_normal_mixture", MIXTURE)
