"""Mistakes in the SSVAE's bound."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from codebase import utils as ut
from codebase.homework.forms import draw, means
from codebase.homework.mistakes import WRONG_NOISE, enter, zeros


@dataclass
class _Labels:
    """The parts of the SSVAE's bound, for each label and image: (label, batch)."""

    log_q_y: torch.Tensor  # (batch, label)
    q_m: torch.Tensor
    q_v: torch.Tensor
    z: torch.Tensor
    kl_z: torch.Tensor
    rec: torch.Tensor

    @property
    def q_y(self) -> torch.Tensor:
        """q(y|x): (label, batch)."""
        return self.log_q_y.exp().T

    def terms(self, q_y=None, kl_z=None, rec=None):
        """Return (kl_y, kl_z, rec), scalars, with other weights or terms if they are given."""
        q_y = self.q_y if q_y is None else q_y
        kl_z, rec = (self.kl_z if kl_z is None else kl_z), (self.rec if rec is None else rec)
        return _kl_y(self.log_q_y), *((q_y * term).sum(0).mean() for term in (kl_z, rec))


def _labels(model, x, given=lambda m, z: z, sample=ut.sample_gaussian) -> _Labels:
    """Return the bound's parts; `given` sets the decoder's input."""
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
    "You average the weighted terms over labels; sum them.":
        lambda kl_y, kl_z, rec: _summed(kl_y, kl_z / 10, rec / 10),
    "You average kl_y over labels; sum over them.":
        lambda kl_y, kl_z, rec: _summed(kl_y / 10, kl_z, rec),
    "You average rec over pixels; sum over them.":
        lambda kl_y, kl_z, rec: _summed(kl_y, kl_z, rec / 784),
    "You leave KL of y out of the bound; add it.":
        lambda kl_y, kl_z, rec: (kl_z + rec, kl_z, kl_y, rec),
    "You leave KL of z out of the bound; add it.":
        lambda kl_y, kl_z, rec: (kl_y + rec, kl_z, kl_y, rec),
    "You return −KL of y; return KL.":
        lambda kl_y, kl_z, rec: _summed(-kl_y, kl_z, rec),
    "You return −KL of z; return KL.":
        lambda kl_y, kl_z, rec: _summed(kl_y, -kl_z, rec),
    "You return +log p(x|y, z) as rec; return −log p(x|y, z).":
        lambda kl_y, kl_z, rec: _summed(kl_y, kl_z, -rec),
    "You return rec with the wrong sign; return −log p(x|y, z). The bound is right.":
        lambda kl_y, kl_z, rec: (kl_y + kl_z + rec, kl_z, kl_y, -rec),
    "You return the ELBO; return the negative ELBO.":
        lambda kl_y, kl_z, rec: (-(kl_y + kl_z + rec), kl_z, kl_y, rec),
    "You subtract rec in the bound; add it.":
        lambda kl_y, kl_z, rec: (kl_y + kl_z - rec, kl_z, kl_y, rec),
    "You subtract kl_z in the bound; add it.":
        lambda kl_y, kl_z, rec: (kl_y - kl_z + rec, kl_z, kl_y, rec),
    "You return kl_z, kl_y and rec as 0; return their values. The bound is right.":
        lambda kl_y, kl_z, rec: (kl_y + kl_z + rec, *torch.zeros(3)),
    "You swap kl_z and kl_y; return the bound, then kl_z, kl_y, rec.":
        lambda kl_y, kl_z, rec: (kl_y + kl_z + rec, kl_y, kl_z, rec),
    "You detach the bound, so it trains nothing; let gradients through.":
        lambda *terms: _summed(*(term.detach() for term in terms)),
    "You subtract kl_y in the bound; add it.":
        lambda kl_y, kl_z, rec: (kl_z + rec - kl_y, kl_z, kl_y, rec),
    "You halve rec; −log p(x|y, z) has no other factor.":
        lambda kl_y, kl_z, rec: _summed(kl_y, kl_z, rec / 2),
    "You return half of rec; return all of it. The bound is right.":
        lambda kl_y, kl_z, rec: (kl_y + kl_z + rec, kl_z, kl_y, rec / 2),
}
enter(
    "SSVAE.negative_elbo_bound",
    OF_TERMS,
    lambda run: lambda model, x: run(*_labels(model, x).terms()),
)


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
    "You reshape (batch, label) rows to (label, batch); transpose them.":
        lambda of: of.terms(kl_z=of.kl_z.T.reshape(10, -1), rec=of.rec.T.reshape(10, -1)),
    "You weight each label by 1/10; weight it by q(y|x).":
        lambda of: of.terms(q_y=torch.tensor(0.1)),
    "You sum over labels without weights; weight each by q(y|x).":
        lambda of: of.terms(q_y=torch.tensor(1.0)),
    "You average KL of z over labels; weight it by q(y|x).":
        lambda of: (*of.terms()[:1], of.kl_z.mean(), of.terms()[2]),
    "You average rec over labels; weight it by q(y|x).":
        lambda of: (*of.terms()[:2], of.rec.mean()),
    "You average q(y|x) over the batch first; weight each image's labels by its own q(y|x).":
        _after_the_mean,
    "You use only the likeliest label; sum over all ten.":
        _likeliest,
    "You pair terms with q(y|x) of other images; reshape to (label, batch), and transpose q(y|x).":
        _wrong_way_round,
    "You leave log p(y) out of kl_y; subtract log p(y) = log 0.1 from log q(y|x).":
        _other_kl_y(lambda log_q: (log_q.exp() * log_q).sum(-1).mean()),
    "You pass 0.1 to kl_cat; pass log p(y) = log 0.1.":
        _other_kl_y(lambda log_q: _kl_y(log_q, 0.1)),
    "You pass log 10 to kl_cat; pass log p(y) = log 0.1.":
        _other_kl_y(lambda log_q: _kl_y(log_q, math.log(10))),
    "You compute KL(p ‖ q) of y; compute KL(q ‖ p).":
        _other_kl_y(lambda log_q: (LOG_P - log_q).mean()),
    "You compute KL(p ‖ q) of z; compute KL(q ‖ p).":
        _reversed_kl_z,
    "You sum kl_y over the batch; average it.":
        _other_kl_y(lambda log_q: len(log_q) * _kl_y(log_q)),
    "You detach q(y|x), so rec does not train it; let gradients through.":
        lambda of: of.terms(q_y=of.q_y.detach()),
}
enter(
    "SSVAE.negative_elbo_bound",
    OF_LABELS,
    lambda run: lambda model, x: _summed(*run(_labels(model, x))),
)

GIVEN = {  # to the decoder
    "You decode one label's z with all labels; draw z from q(z|x, y) of each label.":
        lambda m, z: z[:1].expand_as(z),
    "You use the mean of q(z|x, y) as z; draw z with sample_gaussian.":
        lambda m, z: m,
    "You detach z, so rec does not train the encoder; let gradients through.":
        lambda m, z: z.detach(),
}
enter(
    "SSVAE.negative_elbo_bound",
    GIVEN,
    lambda run: lambda model, x: _summed(*_labels(model, x, run).terms()),
)
enter(
    "SSVAE.negative_elbo_bound",
    WRONG_NOISE,
    lambda sample: lambda model, x: _summed(*_labels(model, x, sample=sample).terms()),
)

Q_Y = {  # other weights, of logits
    "You take the softmax over the batch; take it over the labels.":
        lambda logits: F.log_softmax(logits, 0),
    "You use sigmoids for q(y|x); use the softmax, which adds up to 1.":
        lambda logits: F.logsigmoid(logits),
    "You detach q(y|x), so the bound does not train it; let gradients through.":
        lambda logits: F.log_softmax(logits, -1).detach(),
}


def _with_q_y(run):
    def other(model, x):
        of = _labels(model, x)
        of.log_q_y = run(model.cls.classify(x))
        return _summed(*of.terms())

    return other


enter("SSVAE.negative_elbo_bound", Q_Y, _with_q_y)


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


enter("SSVAE.negative_elbo_bound", {
    "You sample one label; sum over all ten, weighted by q(y|x).":
        _one_label,
    "You pass q(y|x) as y; sum over all ten one-hot labels, weighted by q(y|x).":
        _soft_label,
    "You weight by the logits; weight by their softmax.":
        _logits_as_weights,
    "You use logsigmoid for log q(y|x); use log_softmax.":
        _logsigmoid,
    "You repeat images and labels in the same order; pair each image with all ten labels.":
        _mismatched,
    "You return one value per image; average over the batch.":
        _not_averaged,
    "You return 0; write the function.":
        zeros(4),
})
