"""Mistakes in densities and in drawing."""

import math

import torch

from codebase import utils as ut
from codebase.homework.mistakes.catalogue import enter

LOG_2PI = math.log(2 * math.pi)


def _seeded(m, v):
    torch.manual_seed(0)
    return m + v.sqrt() * torch.randn_like(m)


SAMPLE = {
    "variance as standard deviation": lambda m, v: m + v * torch.randn_like(m),
    "variance as its logarithm": lambda m, v: m + (v / 2).exp() * torch.randn_like(m),
    "variance as log standard deviation": lambda m, v: m + v.exp() * torch.randn_like(m),
    "square root twice": lambda m, v: m + v.sqrt().sqrt() * torch.randn_like(m),
    "uniform noise": lambda m, v: m + v.sqrt() * torch.rand_like(m),
    "no noise": lambda m, v: m + 0,
    "no mean": lambda m, v: v.sqrt() * torch.randn_like(m),
    "detached": lambda m, v: (m + v.sqrt() * torch.randn_like(m)).detach(),
    "detached variance": lambda m, v: m + v.sqrt().detach() * torch.randn_like(m),
    "noise shared by the batch": lambda m, v: m + v.sqrt() * torch.randn(m.shape[-1]),
    "noise shared by dimensions": lambda m, v: m + v.sqrt() * torch.randn(*m.shape[:-1], 1),
    "one number as noise": lambda m, v: m + v.sqrt() * torch.randn(1),
    "seed set inside": _seeded,
}
enter("sample", SAMPLE, lambda run: lambda m, v: run(*torch.broadcast_tensors(m, v)))


def _terms(x, m, v):
    return LOG_2PI + v.log() + _square(x, m, v)


def _square(x, m, v):
    return (x - m) ** 2 / v


NORMAL = {
    "mean over dimensions": lambda x, m, v: -0.5 * _terms(x, m, v).mean(-1),
    "no log 2π": lambda x, m, v: -0.5 * (v.log() + _square(x, m, v)).sum(-1),
    "one log 2π": lambda x, m, v: -0.5 * (v.log() + _square(x, m, v)).sum(-1) - 0.5 * LOG_2PI,
    "log 2π without ½": lambda x, m, v: -(LOG_2PI + (v.log() + _square(x, m, v)) / 2).sum(-1),
    "log 2π added": lambda x, m, v: (LOG_2PI - v.log() - _square(x, m, v)).sum(-1) / 2,
    "2π without log": lambda x, m, v: -0.5 * (2 * math.pi + v.log() + _square(x, m, v)).sum(-1),
    "no log v": lambda x, m, v: -0.5 * (LOG_2PI + _square(x, m, v)).sum(-1),
    "log v without ½": lambda x, m, v: -0.5 * (_terms(x, m, v) + v.log()).sum(-1),
    "variance as standard deviation": lambda x, m, v: -0.5 * _terms(x, m, v**2).sum(-1),
    "variance as its logarithm": lambda x, m, v: -0.5 * _terms(x, m, v.exp()).sum(-1),
    "divided by v squared": lambda x, m, v: (
        -0.5 * (LOG_2PI + v.log() + _square(x, m, v**2)).sum(-1)
    ),
    "quadratic term without ½": lambda x, m, v: -0.5 * (_terms(x, m, v) + _square(x, m, v)).sum(-1),
    "no square": lambda x, m, v: -0.5 * (LOG_2PI + v.log() + (x - m) / v).sum(-1),
    "sign": lambda x, m, v: 0.5 * _terms(x, m, v).sum(-1),
    "density, not its logarithm": lambda x, m, v: (-0.5 * _terms(x, m, v).sum(-1)).exp(),
    "not summed": lambda x, m, v: -0.5 * _terms(x, m, v),
    "summed over everything": lambda x, m, v: -0.5 * _terms(x, m, v).sum(),
    "summed over the batch": lambda x, m, v: -0.5 * _terms(x, m, v).sum(0),
    "averaged over the batch": lambda x, m, v: -0.5 * _terms(x, m, v).sum(-1).mean(),
    "detached": lambda x, m, v: -0.5 * _terms(x, m, v).sum(-1).detach(),
    "sign of the quadratic term": lambda x, m, v: (
        -0.5 * (LOG_2PI + v.log() - _square(x, m, v)).sum(-1)
    ),
    "log 2π times the batch": lambda x, m, v: (
        -0.5 * (v.log() + _square(x, m, v)).sum(-1) - 0.5 * len(x) * LOG_2PI
    ),
    "small number added to v": lambda x, m, v: (
        -0.5 * (LOG_2PI + v.log() + (x - m) ** 2 / (v + 1e-3)).sum(-1)
    ),
    "log10": lambda x, m, v: -0.5 * (LOG_2PI / math.log(10) + v.log10() + _square(x, m, v)).sum(-1),
    "log 2πv without ½": lambda x, m, v: -(LOG_2PI + v.log() + _square(x, m, v) / 2).sum(-1),
    "summed over axis 1": lambda x, m, v: -0.5 * _terms(x, m, v).sum(1),
    "log of the summed variance": lambda x, m, v: (
        -0.5 * ((LOG_2PI + _square(x, m, v)).sum(-1) + v.sum(-1).log())
    ),
    "divided by v squared, log v": lambda x, m, v: (
        -(LOG_2PI / 2 + v.log() + _square(x, m, v**2) / 2).sum(-1)
    ),
}
enter("normal", NORMAL)

# Functions of the components' log densities, (batch, mix), and of the sizes (mix, dim)
OF_COMPONENTS = {
    "mean of logarithms": lambda parts, size: parts.mean(-1),
    "sum of logarithms": lambda parts, size: parts.sum(-1),
    "no − log k": lambda parts, size: parts.logsumexp(-1),
    "+ log k": lambda parts, size: parts.logsumexp(-1) + math.log(size[0]),
    "− log k twice": lambda parts, size: parts.logsumexp(-1) - 2 * math.log(size[0]),
    "log of dim, not of k": lambda parts, size: parts.logsumexp(-1) - math.log(size[1]),
    "unstable": lambda parts, size: parts.exp().mean(-1).log(),
    "clipped": lambda parts, size: (parts.exp().mean(-1) + 1e-30).log(),
    "largest component": lambda parts, size: parts.amax(-1),
    "largest less log k": lambda parts, size: parts.amax(-1) - math.log(size[0]),
    "first component": lambda parts, size: parts[:, 0],
    "wrong axis": lambda parts, size: ut.log_mean_exp(parts, 0),
    "density, not its logarithm": lambda parts, size: parts.exp().mean(-1),
    "averaged over the batch": lambda parts, size: ut.log_mean_exp(parts, 1).mean(),
    "sign": lambda parts, size: -ut.log_mean_exp(parts, 1),
    "detached": lambda parts, size: ut.log_mean_exp(parts, 1).detach(),
    "log of the batch, not of k": lambda parts, size: parts.logsumexp(1) - math.log(len(parts)),
    "log-sum-exp divided by k": lambda parts, size: parts.logsumexp(1) / size[0],
    "responsibilities as weights": lambda parts, size: (parts.softmax(1) * parts).sum(1),
    "largest not added back": lambda parts, size: (
        (parts - parts.amax(1, keepdim=True)).exp().mean(1).log()
    ),
    "smallest taken out": lambda parts, size: (
        (parts - parts.amin(1, keepdim=True)).exp().mean(1).log() + parts.amin(1)
    ),
    "sum of densities": lambda parts, size: parts.exp().sum(1).log(),
}
MIXTURE = {
    "one Gaussian": lambda z, m, v: ut.log_normal(z, m.mean(1), v.mean(1)),
    "variances ignored": lambda z, m, v: ut.log_normal_mixture(z, m, torch.ones_like(v)),
    "standard deviation as variance": lambda z, m, v: ut.log_normal_mixture(z, m, v.sqrt()),
    "rows of z mixed up": lambda z, m, v: ut.log_mean_exp(
        ut.log_normal(ut.duplicate(z, m.shape[1]).reshape(-1, *m.shape[1:]), m, v), 1
    ),
}
enter(
    "mixture",
    OF_COMPONENTS,
    lambda run: lambda z, m, v: run(ut.log_normal(z.unsqueeze(1), m, v), m.shape[1:]),
)
enter("mixture", MIXTURE)
