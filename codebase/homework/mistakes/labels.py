"""Mistakes in the bounds of the models with labels: SSVAE and FSVAE."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from codebase import utils as ut
from codebase.homework.mistakes.catalogue import enter
from codebase.homework.mistakes.parts import WRONG_NOISE, bound, draw, means, zeros

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

    @property
    def q_y(self) -> torch.Tensor:
        """(label, batch)."""
        return self.log_q_y.exp().T

    def terms(self, q_y=None, kl_z=None, rec=None):
        """(kl_y, kl_z, rec), scalars, with other weights or terms if they are given."""
        q_y = self.q_y if q_y is None else q_y
        kl_z, rec = (self.kl_z if kl_z is None else kl_z), (self.rec if rec is None else rec)
        return _kl_y(self.log_q_y), *((q_y * term).sum(0).mean() for term in (kl_z, rec))


def _labels(model, x, given=lambda m, z: z, sample=ut.sample_gaussian) -> _Labels:
    """The parts, as they should be but for what the decoder is given."""
    log_q_y = F.log_softmax(model.cls.classify(x), -1)
    y = torch.eye(10).unsqueeze(1)
    q_m, q_v, z = draw(model, x, y, sample=sample)
    rec = -ut.log_bernoulli_with_logits(x, model.dec.decode(given(q_m, z), y))
    return _Labels(log_q_y, q_m, q_v, z, ut.kl_normal(q_m, q_v, *model.z_prior), rec)


LOG_P = -math.log(10)  # of each label


def _kl_y(log_q_y, log_p=LOG_P):
    return ut.kl_cat(log_q_y.exp(), log_q_y, log_p).mean()


def _summed(kl_y, kl_z, rec):
    return kl_y + kl_z + rec, kl_z, kl_y, rec


OF_TERMS = {  # of kl_y, kl_z and rec, scalars
    "mean over labels": lambda kl_y, kl_z, rec: _summed(kl_y, kl_z / 10, rec / 10),
    "KL of y averaged": lambda kl_y, kl_z, rec: _summed(kl_y / 10, kl_z, rec),
    "averaged over pixels": lambda kl_y, kl_z, rec: _summed(kl_y, kl_z, rec / 784),
    "kl_y left out": lambda kl_y, kl_z, rec: (kl_z + rec, kl_z, kl_y, rec),
    "kl_z left out": lambda kl_y, kl_z, rec: (kl_y + rec, kl_z, kl_y, rec),
    "sign of kl_y": lambda kl_y, kl_z, rec: _summed(-kl_y, kl_z, rec),
    "sign of kl_z": lambda kl_y, kl_z, rec: _summed(kl_y, -kl_z, rec),
    "sign of rec": lambda kl_y, kl_z, rec: _summed(kl_y, kl_z, -rec),
    "sign of rec returned": lambda kl_y, kl_z, rec: (kl_y + kl_z + rec, kl_z, kl_y, -rec),
    "sign of the bound": lambda kl_y, kl_z, rec: (-(kl_y + kl_z + rec), kl_z, kl_y, rec),
    "rec subtracted": lambda kl_y, kl_z, rec: (kl_y + kl_z - rec, kl_z, kl_y, rec),
    "kl_z subtracted": lambda kl_y, kl_z, rec: (kl_y - kl_z + rec, kl_z, kl_y, rec),
    "terms left 0": lambda kl_y, kl_z, rec: (kl_y + kl_z + rec, *torch.zeros(3)),
    "kl_z and kl_y exchanged": lambda kl_y, kl_z, rec: (kl_y + kl_z + rec, kl_y, kl_z, rec),
    "without gradient": lambda *terms: _summed(*(term.detach() for term in terms)),
    "kl_y subtracted": lambda kl_y, kl_z, rec: (kl_z + rec - kl_y, kl_z, kl_y, rec),
    "rec halved": lambda kl_y, kl_z, rec: (kl_y + kl_z + rec, kl_z, kl_y, rec / 2),
}
enter("ssvae", OF_TERMS, lambda run: lambda model, x: run(*_labels(model, x).terms()))


def _likeliest(of):
    return of.terms(q_y=F.one_hot(of.log_q_y.argmax(-1), 10).T)


def _after_the_mean(of):
    return of.terms(q_y=of.q_y.mean(1, keepdim=True))


def _wrong_way_round(of):
    kl_z, rec = (term.reshape(-1, 10).T for term in (of.kl_z, of.rec))
    return of.terms(kl_z=kl_z, rec=rec)


def _reversed_kl_z(of):
    p_m, p_v = torch.zeros_like(of.q_m), torch.ones_like(of.q_v)
    return of.terms(kl_z=ut.kl_normal(p_m, p_v, of.q_m, of.q_v))


def _other_kl_y(run):
    return lambda of: (run(of.log_q_y), *of.terms()[1:])


OF_LABELS = {
    "labels unweighted": lambda of: of.terms(q_y=torch.tensor(0.1)),
    "labels summed": lambda of: of.terms(q_y=torch.tensor(1.0)),
    "kl_z unweighted": lambda of: (*of.terms()[:1], of.kl_z.mean(), of.terms()[2]),
    "rec unweighted": lambda of: (*of.terms()[:2], of.rec.mean()),
    "weighted after the batch's mean": _after_the_mean,
    "only the likeliest label": _likeliest,
    "rows the wrong way round": _wrong_way_round,
    "entropy for kl_y": _other_kl_y(lambda log_q: (log_q.exp() * log_q).sum(-1).mean()),
    "0.1 for log 0.1": _other_kl_y(lambda log_q: _kl_y(log_q, 0.1)),
    "sign of log p(y)": _other_kl_y(lambda log_q: _kl_y(log_q, math.log(10))),
    "KL of y reversed": _other_kl_y(lambda log_q: (LOG_P - log_q).mean()),
    "KL of z reversed": _reversed_kl_z,
    "kl_y summed over the batch": _other_kl_y(lambda log_q: len(log_q) * _kl_y(log_q)),
    "q(y|x) detached": lambda of: of.terms(q_y=of.q_y.detach()),
}
enter("ssvae", OF_LABELS, lambda run: lambda model, x: _summed(*run(_labels(model, x))))

GIVEN = {  # to the decoder
    "z is the mean": lambda m, z: m,
    "z is detached": lambda m, z: z.detach(),
}
enter("ssvae", GIVEN, lambda run: lambda model, x: _summed(*_labels(model, x, run).terms()))
enter(
    "ssvae",
    WRONG_NOISE,
    lambda sample: lambda model, x: _summed(*_labels(model, x, sample=sample).terms()),
)

Q_Y = {  # other weights, of logits
    "softmax over the batch": lambda logits: F.log_softmax(logits, 0),
    "sigmoid for softmax": lambda logits: F.logsigmoid(logits),
    "q(y|x) detached everywhere": lambda logits: F.log_softmax(logits, -1).detach(),
}


def _with_q_y(run):
    def other(model, x):
        of = _labels(model, x)
        of.log_q_y = run(model.cls.classify(x))
        return _summed(*of.terms())

    return other


enter("ssvae", Q_Y, _with_q_y)


def _logits_as_weights(model, x):
    of, logits = _labels(model, x), model.cls.classify(x)
    kl_y = ut.kl_cat(logits, of.log_q_y, LOG_P).mean()
    return _summed(kl_y, *of.terms(q_y=logits.T)[1:])


def _logsigmoid(model, x):
    of = _labels(model, x)
    kl_y = ut.kl_cat(of.q_y.T, F.logsigmoid(model.cls.classify(x)), LOG_P).mean()
    return _summed(kl_y, *of.terms()[1:])


def _soft_label(model, x):
    log_q_y = F.log_softmax(model.cls.classify(x), -1)
    q_m, q_v, z = draw(model, x, log_q_y.exp())
    rec = -ut.log_bernoulli_with_logits(x, model.dec.decode(z, log_q_y.exp()))
    return _summed(_kl_y(log_q_y), *means(ut.kl_normal(q_m, q_v, *model.z_prior), rec))


def _one_label(model, x):
    log_q_y = F.log_softmax(model.cls.classify(x), -1)
    y = F.one_hot(torch.distributions.Categorical(logits=log_q_y).sample(), 10).float()
    q_m, q_v, z = draw(model, x, y)
    rec = -ut.log_bernoulli_with_logits(x, model.dec.decode(z, y))
    return _summed(_kl_y(log_q_y), *means(ut.kl_normal(q_m, q_v, *model.z_prior), rec))


def _mismatched(model, x):
    of, rows, y = _labels(model, x), ut.duplicate(x, 10), ut.duplicate(torch.eye(10), len(x))
    q_m, q_v, z = draw(model, rows, y)
    rec = -ut.log_bernoulli_with_logits(rows, model.dec.decode(z, y))
    kl_z = ut.kl_normal(q_m, q_v, *model.z_prior)
    return _summed(*of.terms(kl_z=kl_z.view(10, -1), rec=rec.view(10, -1)))


def _not_averaged(model, x):
    of = _labels(model, x)
    kl_y = ut.kl_cat(of.q_y.T, of.log_q_y, LOG_P)
    return _summed(kl_y, (of.q_y * of.kl_z).sum(0), (of.q_y * of.rec).sum(0))


enter(
    "ssvae",
    {
        "one sampled label": _one_label,
        "q(y|x) as the label": _soft_label,
        "logits as weights": _logits_as_weights,
        "logsigmoid for log q(y|x)": _logsigmoid,
        "images and labels mismatched": _mismatched,
        "not averaged over the batch": _not_averaged,
        "not written": zeros(4),
    },
)

# FSVAE


def _coloured(model, x, y, sample=ut.sample_gaussian):
    """KL and reconstruction term of each image, as they should be."""
    q_m, q_v, z = draw(model, x, y, sample=sample)
    return ut.kl_normal(q_m, q_v, *model.z_prior), _gaussian(x, model.dec.decode(z, y))


def _gaussian(x, mean, variance=0.1):
    return -ut.log_normal(x, mean, torch.tensor([variance]))


OF_STYLE = {  # of kl and rec of each image
    "averaged over pixels": lambda kl, rec: bound(kl, rec / 3072),
    "sign of rec": lambda kl, rec: bound(kl, -rec),
    "sign of rec returned": lambda kl, rec: (bound(kl, rec)[0], *means(kl, -rec)),
    "sign of the bound": lambda kl, rec: (-bound(kl, rec)[0], *means(kl, rec)),
    "rec subtracted": lambda kl, rec: (bound(kl, -rec)[0], *means(kl, rec)),
    "kl subtracted": lambda kl, rec: (bound(-kl, rec)[0], *means(kl, rec)),
    "kl left out": lambda kl, rec: means(rec, kl, rec),
    "kl and rec left 0": lambda kl, rec: (bound(kl, rec)[0], *torch.zeros(2)),
    "without gradient": lambda kl, rec: bound(kl.detach(), rec.detach()),
    "not averaged over the batch": lambda kl, rec: (kl + rec, kl, rec),
    "rec is the mean of kl": lambda kl, rec: bound(kl, kl),
    "rec halved": lambda kl, rec: (bound(kl, rec)[0], *means(kl, rec / 2)),
    "kl and rec exchanged": lambda kl, rec: (bound(kl, rec)[0], *means(rec, kl)),
    "summed over the batch": lambda kl, rec: bound(kl * len(kl), rec * len(rec)),
    "sign of kl": lambda kl, rec: bound(-kl, rec),
}
enter("fsvae", OF_STYLE, lambda run: lambda model, x, y: run(*_coloured(model, x, y)))
enter(
    "fsvae",
    WRONG_NOISE,
    lambda sample: lambda model, x, y: bound(*_coloured(model, x, y, sample)),
)

OF_MEAN = {  # rec, of images and the decoder's output
    "0.1 as standard deviation": lambda x, mean: _gaussian(x, mean, 0.01),
    "√0.1 as variance": lambda x, mean: _gaussian(x, mean, 0.1**0.5),
    "variance 1": lambda x, mean: _gaussian(x, mean, 1.0),
    "Bernoulli": lambda x, mean: -ut.log_bernoulli_with_logits(x, mean),
    "squared error": lambda x, mean: ((x - mean) ** 2).sum(-1),
    "no log 2π": lambda x, mean: ((x - mean) ** 2).sum(-1) / 0.2,
    "sigmoid on the mean": lambda x, mean: _gaussian(x, mean.sigmoid()),
    "mean clipped": lambda x, mean: _gaussian(x, mean.clamp(0, 1)),
    "images left out of rec": lambda x, mean: _gaussian(mean, torch.zeros(1)),
}
OF_Q = {  # KL, and what the decoder is given
    "KL reversed": lambda m, v, z: (ut.kl_normal(torch.zeros_like(m), torch.ones_like(v), m, v), z),
    "z is the mean": lambda m, v, z: (ut.kl_normal(m, v, 0 * m, 0 * v + 1), m),
    "z is detached": lambda m, v, z: (ut.kl_normal(m, v, 0 * m, 0 * v + 1), z.detach()),
    "z from the prior": lambda m, v, z: (
        ut.kl_normal(m, v, 0 * m, 0 * v + 1),
        torch.randn_like(z),
    ),
}


def _with_mean(run):
    def other(model, x, y):
        q_m, q_v, z = draw(model, x, y)
        return bound(ut.kl_normal(q_m, q_v, *model.z_prior), run(x, model.dec.decode(z, y)))

    return other


def _with_q(run):
    def other(model, x, y):
        kl, given = run(*draw(model, x, y))
        return bound(kl, _gaussian(x, model.dec.decode(given, y)))

    return other


enter("fsvae", OF_MEAN, _with_mean)
enter("fsvae", OF_Q, _with_q)
enter(
    "fsvae",
    {
        "labels ignored": lambda model, x, y: bound(*_coloured(model, x, torch.zeros_like(y))),
        "not written": zeros(3),
    },
)
