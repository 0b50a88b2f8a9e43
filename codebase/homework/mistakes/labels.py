"""Mistakes in the bounds of the models with labels: SSVAE and FSVAE."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from codebase import utils as ut
from codebase.homework.mistakes.catalogue import mistake
from codebase.homework.mistakes.parts import bound, draw

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
    q_m, q_v, z = draw(model, rows, y)
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


@mistake("ssvae", "rec subtracted", "nelbo", "In the bound, rec is subtracted, not added.")
def _(model, x):
    _nelbo, kl_z, kl_y, rec = _summed(*_parts(model, x)[:3])
    return kl_y + kl_z - rec, kl_z, kl_y, rec


@mistake("ssvae", "kl_z subtracted", "nelbo", "In the bound, kl_z is subtracted, not added.")
def _(model, x):
    _nelbo, kl_z, kl_y, rec = _summed(*_parts(model, x)[:3])
    return kl_y - kl_z + rec, kl_z, kl_y, rec


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
    q_m, q_v, z = draw(model, x, y)
    mean = model.dec.decode(z, y)
    rec = -ut.log_normal(x, mean, torch.tensor([variance]))
    return ut.kl_normal(q_m, q_v, *model.z_prior), rec, z, mean


def _with_variance(variance):
    return lambda model, x, y: bound(*_coloured(model, x, y, variance)[:2])


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
    return bound(kl, -ut.log_bernoulli_with_logits(x, mean))


@mistake(
    "fsvae", "squared error", "nelbo.rec", "rec is −log N(x; μ, 0.1·I), not the squared error."
)
def _(model, x, y):
    kl, _rec, _z, mean = _coloured(model, x, y)
    return bound(kl, ((x - mean) ** 2).sum(-1))


@mistake("fsvae", "no log 2π", "nelbo.rec", "The constants of log N(x; μ, 0.1·I) are missing.")
def _(model, x, y):
    kl, _rec, _z, mean = _coloured(model, x, y)
    return bound(kl, ((x - mean) ** 2).sum(-1) / 0.2)


@mistake("fsvae", "sigmoid on the mean", "nelbo.rec", "The decoder gives μ itself: no sigmoid.")
def _(model, x, y):
    kl, _rec, _z, mean = _coloured(model, x, y)
    return bound(kl, -ut.log_normal(x, mean.sigmoid(), torch.tensor([0.1])))


@mistake("fsvae", "mean clipped", "nelbo.rec", "The decoder's mean is clipped to [0, 1].")
def _(model, x, y):
    kl, _rec, _z, mean = _coloured(model, x, y)
    return bound(kl, -ut.log_normal(x, mean.clamp(0, 1), torch.tensor([0.1])))


@mistake("fsvae", "averaged over pixels", "nelbo.rec", "rec is a sum over pixels, not their mean.")
def _(model, x, y):
    kl, rec, *_ = _coloured(model, x, y)
    return bound(kl, rec / x.shape[-1])


@mistake("fsvae", "sign of rec", "nelbo.rec", "The reconstruction term has the wrong sign.")
def _(model, x, y):
    kl, rec, *_ = _coloured(model, x, y)
    return bound(kl, -rec)


@mistake("fsvae", "sign of rec returned", "rec", "The bound is right, but rec has the wrong sign.")
def _(model, x, y):
    nelbo, kl, rec = bound(*_coloured(model, x, y)[:2])
    return nelbo, kl, -rec


@mistake("fsvae", "sign of the bound", "nelbo", "This is the ELBO; the negative ELBO is wanted.")
def _(model, x, y):
    nelbo, kl, rec = bound(*_coloured(model, x, y)[:2])
    return -nelbo, kl, rec


@mistake("fsvae", "rec subtracted", "nelbo", "In the bound, rec is subtracted from kl, not added.")
def _(model, x, y):
    _nelbo, kl, rec = bound(*_coloured(model, x, y)[:2])
    return kl - rec, kl, rec


@mistake("fsvae", "kl subtracted", "nelbo", "In the bound, kl is subtracted from rec, not added.")
def _(model, x, y):
    _nelbo, kl, rec = bound(*_coloured(model, x, y)[:2])
    return rec - kl, kl, rec


@mistake("fsvae", "kl left out", "nelbo", "KL is missing from the bound.")
def _(model, x, y):
    _nelbo, kl, rec = bound(*_coloured(model, x, y)[:2])
    return rec, kl, rec


@mistake("fsvae", "kl and rec left 0", "kl_z.rec", "The bound is right, but kl and rec are left 0.")
def _(model, x, y):
    nelbo, kl, rec = bound(*_coloured(model, x, y)[:2])
    return nelbo, 0 * kl.detach(), 0 * rec.detach()


@mistake("fsvae", "KL reversed", "nelbo.kl_z", "This is KL(p ‖ q); KL(q ‖ p) is wanted.")
def _(model, x, y):
    q_m, q_v, z = draw(model, x, y)
    p_m, p_v = (p.expand_as(z) for p in model.z_prior)
    rec = -ut.log_normal(x, model.dec.decode(z, y), torch.tensor([0.1]))
    return bound(ut.kl_normal(p_m, p_v, q_m, q_v), rec)


@mistake("fsvae", "labels ignored", "nelbo.kl_z.rec", "y is not given to the networks.")
def _(model, x, y):
    return bound(*_coloured(model, x, torch.zeros_like(y))[:2])


@mistake("fsvae", "z is the mean", "nelbo.rec", "z is q's mean: the draw from q(z|x,y) is missing.")
def _(model, x, y):
    q_m, q_v = model.enc.encode(x, y)
    rec = -ut.log_normal(x, model.dec.decode(q_m, y), torch.tensor([0.1]))
    return bound(ut.kl_normal(q_m, q_v, *model.z_prior), rec)


@mistake("fsvae", "z is detached", "gradient", "z is detached: rec does not train the encoder.")
def _(model, x, y):
    q_m, q_v, z = draw(model, x, y)
    rec = -ut.log_normal(x, model.dec.decode(z.detach(), y), torch.tensor([0.1]))
    return bound(ut.kl_normal(q_m, q_v, *model.z_prior), rec)


@mistake("fsvae", "without gradient", "gradient", "The bound is detached: it trains nothing.")
def _(model, x, y):
    return tuple(term.detach() for term in bound(*_coloured(model, x, y)[:2]))


@mistake("fsvae", "not averaged over the batch", "nelbo.kl_z.rec", "The batch's mean is missing.")
def _(model, x, y):
    kl, rec, *_ = _coloured(model, x, y)
    return kl + rec, kl, rec
