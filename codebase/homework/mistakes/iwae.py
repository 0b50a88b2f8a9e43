"""Mistakes in the importance-weighted bounds."""

import math

import torch

from codebase import utils as ut
from codebase.homework.forms import bound, draw, means, rec_of
from codebase.homework.mistakes import WRONG_NOISE, enter, zeros
from codebase.homework.mistakes.elbo import PRIORS

BOTH = "VAE.negative_iwae_bound GMVAE.negative_iwae_bound"


def _weighted(model, x, iw, sample=ut.sample_gaussian):
    """Return, for iw·batch rows, q's mean and variance, z, log q − log p, and −log p(x|z)."""
    q_m, q_v = (ut.duplicate(q, iw) for q in model.enc.encode(x))
    z = sample(q_m, q_v)
    kl = ut.log_normal(z, q_m, q_v) - model.log_p_z(z)
    return q_m, q_v, z, kl, rec_of(model, ut.duplicate(x, iw), z)


def _niwae(log_weights, dim=0):
    """Return the correct bound, computed from log weights (iw, batch)."""
    return -ut.log_mean_exp(log_weights, dim).mean()


def _of_weights(run):
    """Make a bound from a mistake that takes kl and rec, each (iw, batch)."""

    def other(model, x, iw):
        *_, kl, rec = _weighted(model, x, iw)
        return run(kl.view(iw, -1), rec.view(iw, -1))

    return other


NIWAE = {  # of log weights, (iw, batch): the bound alone is wrong
    "You exponentiate the log weights, which underflows; use log_mean_exp.":
        lambda w: -w.exp().mean(0).log().mean(),
    "You add a small number to the mean weight, which hides it; use log_mean_exp.":
        lambda w: -(w.exp().mean(0) + 1e-10).log().mean(),
    "You add log m; subtract it.":
        lambda w: -(w.logsumexp(0) + math.log(len(w))).mean(),
    "You divide the log-sum-exp by m; subtract log m.":
        lambda w: -(w.logsumexp(0) / len(w)).mean(),
    "You subtract the log of the batch size; subtract log m.":
        lambda w: -(w.logsumexp(0) - math.log(w.shape[1])).mean(),
    "You do not subtract log m; subtract it to get the log of the mean weight.":
        lambda w: -w.logsumexp(0).mean(),
    "You subtract log m twice; subtract it once.":
        lambda w: _niwae(w) + math.log(len(w)),
    "You average the log weights, which is the ELBO; take the log of the mean weight.":
        lambda w: -w.mean(),
    "You reshape to (batch, m); duplicate repeats the batch, so reshape to (m, batch).":
        lambda w: _niwae(w.reshape(w.shape[1], len(w)), 1),
    "You average over the batch inside the log; average over the m weights.":
        lambda w: _niwae(w, 1),
    "You find the axis of the weights by its size; always reshape to (m, batch).":
        lambda w: _niwae(w, max(i for i in (0, 1) if w.shape[i] == len(w))),
    "You average the weights of all images; average the m weights of each image.":
        lambda w: -ut.log_mean_exp(w.flatten(), 0),
    "You use q/p as weights; use p/q.":
        lambda w: _niwae(-w),
    "You negate the log weights in the log-mean-exp; negate only the result.":
        lambda w: -_niwae(-w),
    "You return the bound; return its negative.":
        lambda w: -_niwae(w),
    "You take the largest weight; take the mean of the weights.":
        lambda w: -w.amax(0).mean(),
    "You clip the log weights; remove the clipping, because log_mean_exp does not overflow.":
        lambda w: _niwae(w.clamp(min=-100)),
    "You use only one weight; use all m.":
        lambda w: -w[0].mean(),
    "You reshape to (m, batch); repeat_interleave makes rows of (batch, m), so use that.":
        lambda w: _niwae(w.T.reshape(w.shape)),
    "You average each draw over the batch first; average the m weights of each image.":
        lambda w: -ut.log_mean_exp(w.mean(1), 0),
    "You sum the bound over the batch; average it.":
        lambda w: w.shape[1] * _niwae(w),
    "You weight the log weights by their softmax; take the log of the mean weight.":
        lambda w: -(w.softmax(0).detach() * w).sum(0).mean(),
}
enter(
    BOTH,
    NIWAE,
    lambda run: _of_weights(lambda kl, rec: (run(-kl - rec), *means(kl, rec))),
)


def _shares(kl, rec):
    return (-kl - rec).softmax(0)


OF_TERMS = {
    "You add rec in the log weights; subtract it.":
        lambda kl, rec: (_niwae(-kl + rec), *means(kl, rec)),
    "You add kl in the log weights; subtract it.":
        lambda kl, rec: (_niwae(kl - rec), *means(kl, rec)),
    "You use p(x|z) as weights; multiply by p(z)/q(z|x).":
        lambda kl, rec: (_niwae(-rec), *means(kl, rec)),
    "You use p(z)/q(z|x) as weights; multiply by p(x|z).":
        lambda kl, rec: (_niwae(-kl), *means(kl, rec)),
    "You return +log p(x|z) as rec; return −log p(x|z).":
        lambda kl, rec: (_niwae(-kl + rec), *means(kl, -rec)),
    "You return rec with the wrong sign; return −log p(x|z). The bound is right.":
        lambda kl, rec: (_niwae(-kl - rec), *means(kl, -rec)),
    "You return kl and rec as 0; return their values. The bound is right.":
        lambda kl, rec: (_niwae(-kl - rec), *torch.zeros(2)),
    "You return the mean of kl as rec; return the mean of rec.":
        lambda kl, rec: (_niwae(-kl - rec), *means(kl, kl)),
    "You average rec over pixels; sum over them.":
        lambda kl, rec: (_niwae(-kl - rec / 784), *means(kl, rec / 784)),
    "You return one value per image; average over the batch.":
        lambda kl, rec: (-ut.log_mean_exp(-kl - rec, 0), kl.mean(0), rec.mean(0)),
    "You weight kl and rec by the importance weights; return their plain means.":
        lambda kl, rec: (
            _niwae(-kl - rec),
            *means((_shares(kl, rec) * kl).sum(0), (_shares(kl, rec) * rec).sum(0))),
    "You take the log-mean-exp of kl and of rec; take it of the log weights −(kl + rec).":
        lambda kl, rec: bound(
            -ut.log_mean_exp(-kl.flatten(), 0), -ut.log_mean_exp(-rec.flatten(), 0)),
    "You detach the bound, so it trains nothing; let gradients through.":
        lambda kl, rec: (_niwae(-kl - rec).detach(), *means(kl, rec)),
    "You compute log p(z) − log q(z|x) as kl; compute log q(z|x) − log p(z).":
        lambda kl, rec: (_niwae(kl - rec), *means(-kl, rec)),
    "You add the log-mean-exps of −kl and −rec; take one of −(kl + rec).":
        lambda kl, rec: (_niwae(-kl) + _niwae(-rec), *means(kl, rec)),
    "You sum kl and rec over the weights; average them over weights and images.":
        lambda kl, rec: (_niwae(-kl - rec), *means(kl.sum(0), rec.sum(0))),
    "You swap kl and rec; return the bound, then kl, then rec.":
        lambda kl, rec: (_niwae(-kl - rec), *means(rec, kl)),
    "You compute kl as the bound minus rec; return the mean of log q(z|x) − log p(z).":
        lambda kl, rec: (_niwae(-kl - rec), _niwae(-kl - rec) - rec.mean(), rec.mean()),
    "You divide rec by m; do not.":
        lambda kl, rec: (_niwae(-kl - rec / len(rec)), *means(kl, rec / len(rec))),
    "You return kl and rec of each row; return their means. The bound is right.":
        lambda kl, rec: (_niwae(-kl - rec), kl.flatten(), rec.flatten()),
}
enter(BOTH, OF_TERMS, _of_weights)
enter(BOTH, {
    "You return 0; write the function.":
        zeros(3),
})


def _terms(kl, rec, iw):
    return _niwae((-kl - rec).view(iw, -1)), *means(kl, rec)


def _with_noise(sample):
    return lambda model, x, iw: _terms(*_weighted(model, x, iw, sample)[3:], iw)


enter(BOTH, WRONG_NOISE, _with_noise)
# Functions of the model, q's parameters and z: wrong log weights without log p(x|z)
PRIOR_TERM = {
    "You leave log q(z|x) out of the weights; subtract it.":
        lambda model, m, v, z: model.log_p_z(z),
    "You leave log p(z) out of the weights; add it.":
        lambda model, m, v, z: -ut.log_normal(z, m, v),
}
CLOSED_FORM = {
    "You use the closed-form KL in the weights; use log q(z|x) − log p(z) at each z.":
        lambda model, m, v, z: -ut.kl_normal(m, v, *model.z_prior),
}


def _with_weights(run):
    def other(model, x, iw):
        m, v, z, kl, rec = _weighted(model, x, iw)
        return _niwae((run(model, m, v, z) - rec).view(iw, -1)), *means(kl, rec)

    return other


enter(BOTH, PRIOR_TERM, _with_weights)
enter("VAE.negative_iwae_bound", CLOSED_FORM, _with_weights)


def _mean_of_elbos(model, x, iw):
    elbos = [model.negative_elbo_bound(x) for _ in range(iw)]
    return tuple(torch.stack(terms).mean() for terms in zip(*elbos, strict=True))


def _closed_form(model, x, iw):
    kl = ut.duplicate(ut.kl_normal(*model.enc.encode(x), *model.z_prior), iw)
    *_, rec = _weighted(model, x, iw)
    return _terms(kl, rec, iw)


enter("VAE.negative_iwae_bound", {
    "You average m ELBOs; take the log of the mean weight.":
        _mean_of_elbos,
    "You weight by the closed-form KL; use log q(z|x) − log p(z) at each z.":
        _closed_form,
})
AVERAGED = {
    "You average the components' means and variances; use log_normal_mixture.":
        lambda model, z: ut.log_normal(z, *(p.mean(1) for p in model.z_prior)),
}


def _with_prior(log_prior):
    def other(model, x, iw):
        m, v, z, _kl, rec = _weighted(model, x, iw)
        return _terms(ut.log_normal(z, m, v) - log_prior(model, z), rec, iw)

    return other


enter("GMVAE.negative_iwae_bound", PRIORS | AVERAGED, _with_prior)


def _one_z(model, x, iw):
    q_m, q_v, z = draw(model, x)
    return bound(ut.log_normal(z, q_m, q_v) - model.log_p_z(z), rec_of(model, x, z))


def _mean(model, x, iw):
    q_m, q_v = model.enc.encode(x)
    return bound(ut.log_normal(q_m, q_m, q_v) - model.log_p_z(q_m), rec_of(model, x, q_m))


def _mismatched(model, x, iw):
    *_, z, kl, _rec = _weighted(model, x, iw)
    return _terms(kl, rec_of(model, x.repeat_interleave(iw, 0), z), iw)


def _mismatched_z(model, x, iw):
    q_m, q_v = (q.repeat_interleave(iw, 0) for q in model.enc.encode(x))
    z = ut.sample_gaussian(q_m, q_v)
    kl = ut.log_normal(z, q_m, q_v) - model.log_p_z(z)
    return _terms(kl, rec_of(model, ut.duplicate(x, iw), z), iw)


def _detached(model, x, iw):
    q_m, q_v, z, *_ = _weighted(model, x, iw)
    z = z.detach()
    kl = ut.log_normal(z, q_m, q_v) - model.log_p_z(z)
    return _terms(kl, rec_of(model, ut.duplicate(x, iw), z), iw)


enter(BOTH, {
    "You repeat one draw of z; draw one for each of the m weights.":
        _one_z,
    "You use the mean of q(z|x) as z; draw m times with sample_gaussian.":
        _mean,
    "You pair x and z of different images; repeat both in the same order.":
        _mismatched,
    "You repeat q's parameters with repeat_interleave and x with duplicate; use one of them.":
        _mismatched_z,
    "You detach z, so the encoder's gradient is wrong; let gradients through.":
        _detached,
})
