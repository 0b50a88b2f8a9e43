"""Mistakes in the bounds of the models with labels: SSVAE and FSVAE."""

import functools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from codebase import utils as ut
from codebase.homework.mistakes.catalogue import mistake
from codebase.homework.mistakes.parts import WRONG_NOISE, bound, draw

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


def _labels(
    model, x, detach: bool = False, mean: bool = False, sample=ut.sample_gaussian
) -> _Labels:
    log_q_y = F.log_softmax(model.cls.classify(x), -1)
    y = torch.eye(10).unsqueeze(1)
    q_m, q_v = model.enc.encode(x, y)
    z = sample(q_m, q_v)
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


@mistake(
    "ssvae",
    "labels unweighted",
    "nelbo.kl_z.rec",
    "You weight each label by 1/10; weight it by q(y|x).",
)
def _(model, x):
    kl_y, _kl_z, _rec, of = _parts(model, x)
    return _summed(kl_y, of.kl_z.mean(), of.rec.mean())


@mistake(
    "ssvae",
    "labels summed",
    "nelbo.kl_z.rec",
    "You sum over labels without weights; weight each by q(y|x).",
)
def _(model, x):
    kl_y, _kl_z, _rec, of = _parts(model, x)
    return _summed(kl_y, of.kl_z.sum(0).mean(), of.rec.sum(0).mean())


@mistake(
    "ssvae",
    "kl_z unweighted",
    "nelbo.kl_z",
    "You average KL of z over labels; weight it by q(y|x).",
)
def _(model, x):
    kl_y, _kl_z, rec, of = _parts(model, x)
    return _summed(kl_y, of.kl_z.mean(), rec)


@mistake(
    "ssvae", "rec unweighted", "nelbo.rec", "You average rec over labels; weight it by q(y|x)."
)
def _(model, x):
    kl_y, kl_z, _rec, of = _parts(model, x)
    return _summed(kl_y, kl_z, of.rec.mean())


@mistake(
    "ssvae",
    "weighted after the batch's mean",
    "nelbo.kl_z.rec",
    "You average q(y|x) over the batch first; weight the labels of each image by its own.",
)
def _(model, x):
    kl_y, _kl_z, _rec, of = _parts(model, x)
    q_y = of.log_q_y.exp().mean(0)
    return _summed(kl_y, q_y @ of.kl_z.mean(1), q_y @ of.rec.mean(1))


@mistake(
    "ssvae",
    "mean over labels",
    "nelbo.kl_z.rec",
    "You average the weighted terms over labels; sum them.",
)
def _(model, x):
    kl_y, kl_z, rec, _of = _parts(model, x)
    return _summed(kl_y, kl_z / 10, rec / 10)


@mistake(
    "ssvae",
    "likeliest label alone",
    "nelbo.kl_z.rec",
    "You use only the likeliest label; sum over all ten.",
)
def _(model, x):
    kl_y, _kl_z, _rec, of = _parts(model, x)
    one = F.one_hot(of.log_q_y.argmax(-1), 10).T
    return _summed(kl_y, (one * of.kl_z).sum(0).mean(), (one * of.rec).sum(0).mean())


@mistake(
    "ssvae",
    "rows the wrong way round",
    "nelbo.kl_z.rec",
    "You reshape to (batch, label); duplicate repeats the batch, so use (label, batch).",
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
    "You repeat images and labels in the same order; pair each image with all ten labels.",
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
    "ssvae",
    "entropy for kl_y",
    "nelbo.kl_y",
    "You leave log p(y) out of kl_y; it is log 0.1 for each label.",
)
def _(model, x):
    _kl_y_right, kl_z, rec, of = _parts(model, x)
    return _summed((of.log_q_y.exp() * of.log_q_y).sum(-1).mean(), kl_z, rec)


@mistake(
    "ssvae", "0.1 for log 0.1", "nelbo.kl_y", "You pass 0.1 to kl_cat; pass log p(y) = log 0.1."
)
def _(model, x):
    _kl_y_right, kl_z, rec, of = _parts(model, x)
    return _summed(ut.kl_cat(of.log_q_y.exp(), of.log_q_y, 0.1).mean(), kl_z, rec)


@mistake(
    "ssvae", "sign of log p(y)", "nelbo.kl_y", "You pass log 10 to kl_cat; pass log p(y) = log 0.1."
)
def _(model, x):
    _kl_y_right, kl_z, rec, of = _parts(model, x)
    return _summed(ut.kl_cat(of.log_q_y.exp(), of.log_q_y, math.log(10)).mean(), kl_z, rec)


@mistake(
    "ssvae", "KL of y reversed", "nelbo.kl_y", "You compute KL(p ‖ q) of y; compute KL(q ‖ p)."
)
def _(model, x):
    _kl_y_right, kl_z, rec, of = _parts(model, x)
    kl_y = (-math.log(10) - of.log_q_y).mean(-1).mean()
    return _summed(kl_y, kl_z, rec)


@mistake("ssvae", "KL of y averaged", "nelbo.kl_y", "You average kl_y over labels; sum over them.")
def _(model, x):
    kl_y, kl_z, rec, _of = _parts(model, x)
    return _summed(kl_y / 10, kl_z, rec)


@mistake("ssvae", "kl_y left out", "nelbo", "You leave KL of y out of the bound; add it.")
def _(model, x):
    kl_y, kl_z, rec, _of = _parts(model, x)
    return kl_z + rec, kl_z, kl_y, rec


@mistake("ssvae", "kl_z left out", "nelbo", "You leave KL of z out of the bound; add it.")
def _(model, x):
    kl_y, kl_z, rec, _of = _parts(model, x)
    return kl_y + rec, kl_z, kl_y, rec


@mistake("ssvae", "sign of kl_y", "nelbo.kl_y", "You return −KL of y; return KL.")
def _(model, x):
    kl_y, kl_z, rec, _of = _parts(model, x)
    return _summed(-kl_y, kl_z, rec)


@mistake("ssvae", "sign of kl_z", "nelbo.kl_z", "You return −KL of z; return KL.")
def _(model, x):
    kl_y, kl_z, rec, _of = _parts(model, x)
    return _summed(kl_y, -kl_z, rec)


@mistake("ssvae", "sign of rec", "nelbo.rec", "You return +log p(x|z) as rec; rec is −log p(x|z).")
def _(model, x):
    kl_y, kl_z, rec, _of = _parts(model, x)
    return _summed(kl_y, kl_z, -rec)


@mistake(
    "ssvae",
    "sign of rec returned",
    "rec",
    "You return rec with the wrong sign; return −log p(x|z). The bound is right.",
)
def _(model, x):
    nelbo, kl_z, kl_y, rec = _summed(*_parts(model, x)[:3])
    return nelbo, kl_z, kl_y, -rec


@mistake("ssvae", "sign of the bound", "nelbo", "You return the ELBO; return the negative ELBO.")
def _(model, x):
    nelbo, *terms = _summed(*_parts(model, x)[:3])
    return -nelbo, *terms


@mistake("ssvae", "rec subtracted", "nelbo", "You subtract rec in the bound; add it.")
def _(model, x):
    _nelbo, kl_z, kl_y, rec = _summed(*_parts(model, x)[:3])
    return kl_y + kl_z - rec, kl_z, kl_y, rec


@mistake("ssvae", "kl_z subtracted", "nelbo", "You subtract kl_z in the bound; add it.")
def _(model, x):
    _nelbo, kl_z, kl_y, rec = _summed(*_parts(model, x)[:3])
    return kl_y - kl_z + rec, kl_z, kl_y, rec


@mistake(
    "ssvae",
    "terms left 0",
    "kl_z.kl_y.rec",
    "You return kl_z, kl_y and rec as 0; return their values. The bound is right.",
)
def _(model, x):
    nelbo, *terms = _summed(*_parts(model, x)[:3])
    return nelbo, *(0 * term.detach() for term in terms)


@mistake(
    "ssvae",
    "kl_z and kl_y exchanged",
    "kl_z.kl_y",
    "You exchange kl_z and kl_y; return the bound, then kl_z, kl_y, rec.",
)
def _(model, x):
    nelbo, kl_z, kl_y, rec = _summed(*_parts(model, x)[:3])
    return nelbo, kl_y, kl_z, rec


@mistake(
    "ssvae", "KL of z reversed", "nelbo.kl_z", "You compute KL(p ‖ q) of z; compute KL(q ‖ p)."
)
def _(model, x):
    kl_y, _kl_z, rec, of = _parts(model, x)
    p_m, p_v = (p.expand_as(of.z) for p in model.z_prior)
    return _summed(kl_y, _expected(of.log_q_y, ut.kl_normal(p_m, p_v, of.q_m, of.q_v)), rec)


@mistake(
    "ssvae", "averaged over pixels", "nelbo.rec", "You average rec over pixels; sum over them."
)
def _(model, x):
    kl_y, kl_z, rec, _of = _parts(model, x)
    return _summed(kl_y, kl_z, rec / 784)


@mistake(
    "ssvae",
    "z is the mean",
    "nelbo.rec",
    "You use the mean of q(z|x, y) as z; draw z with sample_gaussian.",
)
def _(model, x):
    of = _labels(model, x, mean=True)
    kl_z, rec = _expected(of.log_q_y, of.kl_z), _expected(of.log_q_y, of.rec)
    return _summed(_kl_y(of.log_q_y), kl_z, rec)


@mistake(
    "ssvae",
    "q(y|x) detached",
    "gradient",
    "You detach q(y|x), so rec does not train it; let gradients through.",
)
def _(model, x):
    of = _labels(model, x)
    q_y = of.log_q_y.detach()
    return _summed(_kl_y(of.log_q_y), _expected(q_y, of.kl_z), _expected(q_y, of.rec))


@mistake(
    "ssvae",
    "z is detached",
    "gradient",
    "You detach z, so rec does not train the encoder; let gradients through.",
)
def _(model, x):
    of = _labels(model, x, detach=True)
    kl_z, rec = _expected(of.log_q_y, of.kl_z), _expected(of.log_q_y, of.rec)
    return _summed(_kl_y(of.log_q_y), kl_z, rec)


@mistake(
    "ssvae",
    "without gradient",
    "gradient",
    "You detach the bound, so it trains nothing; let gradients through.",
)
def _(model, x):
    return tuple(term.detach() for term in _summed(*_parts(model, x)[:3]))


@mistake(
    "ssvae",
    "softmax over the batch",
    "nelbo.kl_z.kl_y.rec",
    "You take the softmax over the batch; take it over the labels.",
)
def _(model, x):
    of = _labels(model, x)
    log_q_y = F.log_softmax(model.cls.classify(x), 0)
    return _summed(_kl_y(log_q_y), _expected(log_q_y, of.kl_z), _expected(log_q_y, of.rec))


@mistake(
    "ssvae",
    "sigmoid for softmax",
    "nelbo.kl_z.kl_y.rec",
    "You use sigmoids for q(y|x); use the softmax, which adds up to 1.",
)
def _(model, x):
    of = _labels(model, x)
    log_q_y = F.logsigmoid(model.cls.classify(x))
    return _summed(_kl_y(log_q_y), _expected(log_q_y, of.kl_z), _expected(log_q_y, of.rec))


@mistake(
    "ssvae",
    "not averaged over the batch",
    "nelbo.kl_z.kl_y.rec",
    "You return one value per image; average over the batch.",
)
def _(model, x):
    of = _labels(model, x)
    q_y = of.log_q_y.exp().T
    kl_y = ut.kl_cat(of.log_q_y.exp(), of.log_q_y, -math.log(10))
    return _summed(kl_y, (q_y * of.kl_z).sum(0), (q_y * of.rec).sum(0))


def _with_noise(sample, model, x):
    of = _labels(model, x, sample=sample)
    kl_z, rec = _expected(of.log_q_y, of.kl_z), _expected(of.log_q_y, of.rec)
    return _summed(_kl_y(of.log_q_y), kl_z, rec)


for (name, sentence), sample in WRONG_NOISE.items():
    mistake("ssvae", name, "nelbo.rec", sentence)(functools.partial(_with_noise, sample))


@mistake(
    "ssvae", "not written", "nelbo.kl_z.kl_y.rec.gradient", "You return 0; write the function."
)
def _(model, x):
    return torch.zeros(4).unbind()


@mistake(
    "ssvae",
    "one sampled label",
    "nelbo.kl_z.rec",
    "You sample one label; sum over all ten, weighted by q(y|x).",
)
def _(model, x):
    log_q_y = F.log_softmax(model.cls.classify(x), -1)
    y = F.one_hot(torch.distributions.Categorical(logits=log_q_y).sample(), 10).float()
    q_m, q_v, z = draw(model, x, y)
    kl_z = ut.kl_normal(q_m, q_v, *model.z_prior).mean()
    rec = -ut.log_bernoulli_with_logits(x, model.dec.decode(z, y)).mean()
    return _summed(_kl_y(log_q_y), kl_z, rec)


# FSVAE


def _coloured(model, x, y, variance: float = 0.1, sample=ut.sample_gaussian):
    """KL and reconstruction term of each image; z and the decoder's mean."""
    q_m, q_v, z = draw(model, x, y, sample=sample)
    mean = model.dec.decode(z, y)
    rec = -ut.log_normal(x, mean, torch.tensor([variance]))
    return ut.kl_normal(q_m, q_v, *model.z_prior), rec, z, mean


def _with_variance(variance):
    return lambda model, x, y: bound(*_coloured(model, x, y, variance)[:2])


mistake(
    "fsvae", "0.1 as deviation", "nelbo.rec", "You use the variance 0.1²; the variance is 0.1."
)(_with_variance(0.01))
mistake(
    "fsvae", "√0.1 as variance", "nelbo.rec", "You use the variance √0.1; the variance is 0.1."
)(_with_variance(0.1**0.5))
mistake("fsvae", "variance 1", "nelbo.rec", "You use the variance 1; p(x|y, z) has variance 0.1.")(
    _with_variance(1.0)
)


@mistake("fsvae", "Bernoulli", "nelbo.rec", "You use a Bernoulli for x; p(x|y, z) is N(μ, 0.1·I).")
def _(model, x, y):
    kl, _rec, _z, mean = _coloured(model, x, y)
    return bound(kl, -ut.log_bernoulli_with_logits(x, mean))


@mistake(
    "fsvae", "squared error", "nelbo.rec", "You use the squared error; rec is −log N(x; μ, 0.1·I)."
)
def _(model, x, y):
    kl, _rec, _z, mean = _coloured(model, x, y)
    return bound(kl, ((x - mean) ** 2).sum(-1))


@mistake(
    "fsvae",
    "no log 2π",
    "nelbo.rec",
    "You leave out the constants of log N(x; μ, 0.1·I); use log_normal.",
)
def _(model, x, y):
    kl, _rec, _z, mean = _coloured(model, x, y)
    return bound(kl, ((x - mean) ** 2).sum(-1) / 0.2)


@mistake(
    "fsvae",
    "sigmoid on the mean",
    "nelbo.rec",
    "You apply a sigmoid to the decoder's output; it is the mean μ itself.",
)
def _(model, x, y):
    kl, _rec, _z, mean = _coloured(model, x, y)
    return bound(kl, -ut.log_normal(x, mean.sigmoid(), torch.tensor([0.1])))


@mistake(
    "fsvae", "mean clipped", "nelbo.rec", "You clip the decoder's mean to [0, 1]; use it as it is."
)
def _(model, x, y):
    kl, _rec, _z, mean = _coloured(model, x, y)
    return bound(kl, -ut.log_normal(x, mean.clamp(0, 1), torch.tensor([0.1])))


@mistake(
    "fsvae", "averaged over pixels", "nelbo.rec", "You average rec over pixels; sum over them."
)
def _(model, x, y):
    kl, rec, *_ = _coloured(model, x, y)
    return bound(kl, rec / x.shape[-1])


@mistake("fsvae", "sign of rec", "nelbo.rec", "You return +log p(x|z) as rec; rec is −log p(x|z).")
def _(model, x, y):
    kl, rec, *_ = _coloured(model, x, y)
    return bound(kl, -rec)


@mistake(
    "fsvae",
    "sign of rec returned",
    "rec",
    "You return rec with the wrong sign; return −log p(x|z). The bound is right.",
)
def _(model, x, y):
    nelbo, kl, rec = bound(*_coloured(model, x, y)[:2])
    return nelbo, kl, -rec


@mistake("fsvae", "sign of the bound", "nelbo", "You return the ELBO; return the negative ELBO.")
def _(model, x, y):
    nelbo, kl, rec = bound(*_coloured(model, x, y)[:2])
    return -nelbo, kl, rec


@mistake("fsvae", "rec subtracted", "nelbo", "You subtract rec from kl in the bound; add them.")
def _(model, x, y):
    _nelbo, kl, rec = bound(*_coloured(model, x, y)[:2])
    return kl - rec, kl, rec


@mistake("fsvae", "kl subtracted", "nelbo", "You subtract kl from rec in the bound; add them.")
def _(model, x, y):
    _nelbo, kl, rec = bound(*_coloured(model, x, y)[:2])
    return rec - kl, kl, rec


@mistake("fsvae", "kl left out", "nelbo", "You leave KL out of the bound; add it.")
def _(model, x, y):
    _nelbo, kl, rec = bound(*_coloured(model, x, y)[:2])
    return rec, kl, rec


@mistake(
    "fsvae",
    "kl and rec left 0",
    "kl_z.rec",
    "You return kl and rec as 0; return their values. The bound is right.",
)
def _(model, x, y):
    nelbo, kl, rec = bound(*_coloured(model, x, y)[:2])
    return nelbo, 0 * kl.detach(), 0 * rec.detach()


@mistake("fsvae", "KL reversed", "nelbo.kl_z", "You compute KL(p ‖ q); compute KL(q ‖ p).")
def _(model, x, y):
    q_m, q_v, z = draw(model, x, y)
    p_m, p_v = (p.expand_as(z) for p in model.z_prior)
    rec = -ut.log_normal(x, model.dec.decode(z, y), torch.tensor([0.1]))
    return bound(ut.kl_normal(p_m, p_v, q_m, q_v), rec)


@mistake(
    "fsvae",
    "labels ignored",
    "nelbo.kl_z.rec",
    "You do not pass y to the networks; pass it to enc and dec.",
)
def _(model, x, y):
    return bound(*_coloured(model, x, torch.zeros_like(y))[:2])


@mistake(
    "fsvae",
    "z is the mean",
    "nelbo.rec",
    "You use the mean of q(z|x, y) as z; draw z with sample_gaussian.",
)
def _(model, x, y):
    q_m, q_v = model.enc.encode(x, y)
    rec = -ut.log_normal(x, model.dec.decode(q_m, y), torch.tensor([0.1]))
    return bound(ut.kl_normal(q_m, q_v, *model.z_prior), rec)


@mistake(
    "fsvae",
    "z is detached",
    "gradient",
    "You detach z, so rec does not train the encoder; let gradients through.",
)
def _(model, x, y):
    q_m, q_v, z = draw(model, x, y)
    rec = -ut.log_normal(x, model.dec.decode(z.detach(), y), torch.tensor([0.1]))
    return bound(ut.kl_normal(q_m, q_v, *model.z_prior), rec)


@mistake(
    "fsvae",
    "without gradient",
    "gradient",
    "You detach the bound, so it trains nothing; let gradients through.",
)
def _(model, x, y):
    return tuple(term.detach() for term in bound(*_coloured(model, x, y)[:2]))


@mistake(
    "fsvae",
    "not averaged over the batch",
    "nelbo.kl_z.rec",
    "You return one value per image; average over the batch.",
)
def _(model, x, y):
    kl, rec, *_ = _coloured(model, x, y)
    return kl + rec, kl, rec


def _with_other_noise(sample, model, x, y):
    return bound(*_coloured(model, x, y, sample=sample)[:2])


for (name, sentence), sample in WRONG_NOISE.items():
    mistake("fsvae", name, "nelbo.rec", sentence)(functools.partial(_with_other_noise, sample))


@mistake("fsvae", "not written", "nelbo.kl_z.rec.gradient", "You return 0; write the function.")
def _(model, x, y):
    return torch.zeros(3).unbind()


@mistake(
    "fsvae",
    "rec is the mean of kl",
    "nelbo.rec.gradient",
    "You return the mean of kl as rec; return the mean of rec.",
)
def _(model, x, y):
    kl, *_ = _coloured(model, x, y)
    return bound(kl, kl)
