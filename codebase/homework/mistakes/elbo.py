"""Mistakes in the ELBO of the VAE, the GMVAE and the FSVAE."""

import math

import torch

from codebase import utils as ut
from codebase.homework.forms import bound, coloured, draw, kl_of, log_standard, means, rec_of
from codebase.homework.mistakes import WRONG_NOISE, enter, zeros

UNLABELLED = "VAE.negative_elbo_bound GMVAE.negative_elbo_bound"
ALL = f"{UNLABELLED} FSVAE.negative_elbo_bound"


def _terms(model, x, *y, sample=ut.sample_gaussian):
    """Return the correct KL and reconstruction term of each image."""
    q_m, q_v, z = draw(model, x, *y, sample=sample)
    return kl_of(model, q_m, q_v, z), rec_of(model, x, z, *y)


OF_TERMS = {
    "You return +log p(x|z) as rec; return −log p(x|z).":
        lambda kl, rec: bound(kl, -rec),
    "You return −KL; return KL.":
        lambda kl, rec: bound(-kl, rec),
    "You return the ELBO and its terms; return the negative of all three.":
        lambda kl, rec: bound(-kl, -rec),
    "You return the ELBO; return the negative ELBO.":
        lambda kl, rec: (-bound(kl, rec)[0], *means(kl, rec)),
    "You return rec with the wrong sign; return −log p(x|z). The bound is right.":
        lambda kl, rec: (bound(kl, rec)[0], *means(kl, -rec)),
    "You return kl and rec as 0; return their values. The bound is right.":
        lambda kl, rec: (bound(kl, rec)[0], *torch.zeros(2)),
    "You swap kl and rec; return the bound, then kl, then rec.":
        lambda kl, rec: (bound(kl, rec)[0], *means(rec, kl)),
    "You subtract rec from kl in the bound; add them.":
        lambda kl, rec: (bound(kl, -rec)[0], *means(kl, rec)),
    "You subtract kl from rec in the bound; add them.":
        lambda kl, rec: (bound(-kl, rec)[0], *means(kl, rec)),
    "You leave KL out of the bound; add it.":
        lambda kl, rec: means(rec, kl, rec),
    "You leave rec out of the bound; add it.":
        lambda kl, rec: means(kl, kl, rec),
    "You return one value per image; average over the batch.":
        lambda kl, rec: (kl + rec, kl, rec),
    "You sum over the batch; average over it.":
        lambda kl, rec: bound(kl * len(kl), rec * len(rec)),
    "You sum kl over the batch; average it.":
        lambda kl, rec: bound(kl * len(kl), rec),
    "You sum rec over the batch; average it.":
        lambda kl, rec: bound(kl, rec * len(rec)),
    "You return the mean of kl as rec; return the mean of rec.":
        lambda kl, rec: bound(kl, kl),
    "You halve rec; −log p(x|z) has no other factor.":
        lambda kl, rec: bound(kl, rec / 2),
    "You return half of rec; return all of it. The bound is right.":
        lambda kl, rec: (bound(kl, rec)[0], *means(kl, rec / 2)),
    "You detach the bound, so it trains nothing; let gradients through.":
        lambda kl, rec: bound(kl.detach(), rec.detach()),
    "You add half of kl to the bound; add all of it.":
        lambda kl, rec: (bound(kl / 2, rec)[0], *means(kl, rec)),
    "You divide kl by the batch size after its mean; the mean is enough.":
        lambda kl, rec: bound(kl / len(kl), rec),
    "You divide kl by the batch size again; return its mean. The bound is right.":
        lambda kl, rec: (bound(kl, rec)[0], *means(kl / len(kl), rec)),
    "You return the sums of kl and rec; return their means. The bound is right.":
        lambda kl, rec: (bound(kl, rec)[0], kl.sum(), rec.sum()),
    "You return kl and rec of each image; return their means. The bound is right.":
        lambda kl, rec: (bound(kl, rec)[0], kl, rec),
}
enter(ALL, OF_TERMS, lambda run: lambda *args: run(*_terms(*args)))
enter(ALL, WRONG_NOISE, lambda sample: lambda *args: bound(*_terms(*args, sample=sample)))
enter(ALL, {
    "You return 0; write the function.":
        zeros(3),
})
enter("VAE.negative_elbo_bound", {
    "You add beta·KL to the bound; the loss has beta, so add KL.":
        lambda kl, rec, beta: (bound(beta * kl, rec)[0], *means(kl, rec)),
}, lambda run: lambda model, x: run(*_terms(model, x), model.beta))
enter("GMVAE.negative_elbo_bound", {
    "You draw z without gradients; let them flow through z.":
        torch.no_grad()(ut.sample_gaussian),
}, lambda sample: lambda model, x: bound(*_terms(model, x, sample=sample)))


def _of_q(change):
    """Make a bound with wrong parameters of q(z|x), either only for z or also for KL."""

    def other(model, x):
        q_m, q_v = model.enc.encode(x)
        m, v, also_kl = change(q_m, q_v)
        z = ut.sample_gaussian(m, v)
        kl = model.kl_to_prior(z, *((m, v) if also_kl else (q_m, q_v)))
        return bound(kl, rec_of(model, x, z))

    return other


OF_Q = {
    "You average q(z|x) over the batch; draw z from each image's own.":
        lambda m, v: (m.mean(0).expand_as(m), v.mean(0).expand_as(v), False),
    "You exponentiate the variance; encode already returns the variance.":
        lambda m, v: (m, v.exp(), True),
}
enter(UNLABELLED, OF_Q, _of_q)


def _clipped(x, logits):
    p = logits.sigmoid().clamp(0.5, 1 - 1e-6)
    return -(x * p.log() + (1 - x) * (1 - p).log()).sum(-1)


def _bernoulli(x, logits):
    return -ut.log_bernoulli_with_logits(x, logits)


OF_LOGITS = {  # the reconstruction term
    "You average rec over pixels; sum over them.":
        lambda x, logits: _bernoulli(x, logits) / 784,
    "You apply a sigmoid to the decoder's output; pass its logits unchanged.":
        lambda x, logits: _bernoulli(x, logits.sigmoid()),
    "You clip the probabilities; pass the logits to log_bernoulli_with_logits.":
        _clipped,
    "You use the squared error; use −log p(x|z) of a Bernoulli.":
        lambda x, logits: ((logits.sigmoid() - x) ** 2).sum(-1),
    "You swap x and logits; pass x first.":
        lambda x, logits: _bernoulli(logits, x),
    "You sample an image from the decoder; pass its logits to log_bernoulli_with_logits.":
        lambda x, logits: _bernoulli(x, logits.sigmoid().bernoulli()),
}
OF_MEAN = {  # of the FSVAE
    "You average rec over pixels; sum over them.":
        lambda x, mean: coloured(x, mean) / 3072,
    "You use the variance 0.1²; use 0.1.":
        lambda x, mean: coloured(x, mean, 0.01),
    "You use the variance √0.1; use 0.1.":
        lambda x, mean: coloured(x, mean, 0.1**0.5),
    "You use the variance 1; use 0.1.":
        lambda x, mean: coloured(x, mean, 1.0),
    "You use a Bernoulli for x; use N(μ, 0.1·I).":
        lambda x, mean: -ut.log_bernoulli_with_logits(x, mean),
    "You use the squared error; return −log N(x; μ, 0.1·I).":
        lambda x, mean: ((x - mean) ** 2).sum(-1),
    "You leave out the constants of log N(x; μ, 0.1·I); use log_normal.":
        lambda x, mean: ((x - mean) ** 2).sum(-1) / 0.2,
    "You apply a sigmoid to the decoder's output; use the output as the mean μ.":
        lambda x, mean: coloured(x, mean.sigmoid()),
    "You clip the decoder's mean to [0, 1]; use it as it is.":
        lambda x, mean: coloured(x, mean.clamp(0, 1)),
    "You leave x out of rec; compare x with the decoder's mean.":
        lambda x, mean: coloured(mean, torch.zeros(1)),
}


def _with_reconstruction(run):
    def other(model, x, *y):
        q_m, q_v, z = draw(model, x, *y)
        return bound(kl_of(model, q_m, q_v, z), run(x, model.dec.decode(z, *y)))

    return other


enter(UNLABELLED, OF_LOGITS, _with_reconstruction)
enter("FSVAE.negative_elbo_bound", OF_MEAN, _with_reconstruction)


def _exchanged_and_not_averaged(model, x):
    q_m, q_v, z = draw(model, x)
    kl, rec = model.kl_to_prior(z, q_m, q_v).mean(), _bernoulli(model.dec.decode(z), x)
    return kl + rec, kl, rec


enter(UNLABELLED, {
    "You swap x and logits; pass x first, and average over the batch.":
        _exchanged_and_not_averaged,
})

# KL, and what the decoder is given
OF_Z = {
    "You detach z, so rec does not train the encoder; let gradients through.":
        lambda model, m, v, z: (kl_of(model, m, v, z), z.detach()),
    "You draw z from p(z); draw it from q(z|x).":
        lambda model, m, v, z: (kl_of(model, m, v, z), torch.randn_like(z)),
    "You use the mean of q(z|x) as z; draw z with sample_gaussian.":
        lambda model, m, v, z: (kl_of(model, m, v, m), m),
    "You decode the mean of q(z|x); decode the draw z.":
        lambda model, m, v, z: (kl_of(model, m, v, z), m),
}
REVERSED_KL = {
    "You compute KL(p ‖ q); compute KL(q ‖ p).":
        lambda model, m, v, z: ut.kl_normal(torch.zeros_like(m), torch.ones_like(v), m, v),
}
KL = {  # of the VAE
    "You use v as a logarithm in KL; v is the variance itself.":
        lambda model, m, v, z: 0.5 * (v.exp() + m**2 - 1 - v).sum(-1),
    "You average KL over dimensions and multiply it by 10; sum over the dimensions.":
        lambda model, m, v, z: 10 * ut.kl_normal(m, v, *model.z_prior) / model.z_dim,
    "You multiply KL by beta in the bound; the loss does that, so leave it out.":
        lambda model, m, v, z: model.beta * ut.kl_normal(m, v, *model.z_prior),
    **REVERSED_KL,
    "You average KL over the dimensions of z; sum over them.":
        lambda model, m, v, z: (ut.kl_normal(m, v, *model.z_prior) / model.z_dim),
    "You leave out the ½ of the KL between Gaussians; add it.":
        lambda model, m, v, z: 2 * ut.kl_normal(m, v, *model.z_prior),
    "You use √v as the variance in KL; v itself is the variance.":
        lambda model, m, v, z: ut.kl_normal(m, v.sqrt(), *model.z_prior),
    "You use v² as the variance in KL; v itself is the variance.":
        lambda model, m, v, z: ut.kl_normal(m, v**2, *model.z_prior),
    "You pass z to kl_normal; pass the mean of q(z|x).":
        lambda model, m, v, z: ut.kl_normal(z, v, *model.z_prior),
    "You leave out −½ per dimension in KL; subtract ½ for each dimension.":
        lambda model, m, v, z: (ut.kl_normal(m, v, *model.z_prior) + 0.5 * model.z_dim),
    "You estimate KL by log p(z) − log q(z|x); change the sign.":
        lambda model, m, v, z: log_standard(z) - ut.log_normal(z, m, v),
    "You compute KL of the decoder's output; compute KL of q(z|x).":
        lambda model, m, v, z: ut.kl_normal(
            *ut.gaussian_parameters(model.dec.decode(z)), *model.z_prior),
}


def _log_q_over(log_prior):
    return lambda model, m, v, z: ut.log_normal(z, m, v) - log_prior(model, z)


def _exp_for_softplus(model, z):
    p_m, h = model.z_pre.chunk(2, dim=1)
    return ut.log_normal_mixture(z, p_m, h.exp())


def _squared(model, z):
    p_m, h = model.z_pre.chunk(2, dim=1)
    return ut.log_normal_mixture(z, p_m, h**2)


def _one_component(model, m, v, z):
    k = torch.randint(model.k, (len(z),))
    return ut.kl_normal(m, v, *(p[0, k] for p in model.z_prior))


def _first_component(model, z):
    return ut.log_normal(z, *(p[:, 0] for p in model.z_prior))


def _ones(model, z):
    p_m, p_v = model.z_prior
    return ut.log_normal_mixture(z, p_m, torch.ones_like(p_v))


PRIORS = {  # log p(z) of the GMVAE; the IWAE bound has the same mistakes
    "You use the prior N(0, I); use the mixture of Gaussians.":
        lambda model, z: log_standard(z),
    "You leave out the mixture's weights 1/k; subtract log k from log p(z).":
        lambda model, z: model.log_p_z(z) + math.log(model.k),
    "You ignore the prior's variances; pass both means and variances.":
        _ones,
}
MIXTURE_KL = {
    **{sentence: _log_q_over(log_prior) for sentence, log_prior in PRIORS.items()},
    "You subtract log k from log p(z) twice; log_normal_mixture subtracts it already.":
        _log_q_over(lambda model, z: model.log_p_z(z) - math.log(model.k)),
    "You subtract log 500 in log p(z); subtract log k, of this model.":
        _log_q_over(lambda model, z: model.log_p_z(z) + math.log(model.k / 500)),
    "You use only the first component as the prior; use the mixture.":
        _log_q_over(_first_component),
    "You exponentiate z_pre's second half; use gaussian_parameters, with softplus.":
        _log_q_over(_exp_for_softplus),
    "You leave log p(z) out of KL; subtract it.":
        lambda model, m, v, z: ut.log_normal(z, m, v),
    "You square z_pre's second half; use gaussian_parameters, with softplus.":
        _log_q_over(_squared),
    "You average the components' means and variances; use log_normal_mixture.":
        lambda model, m, v, z: ut.kl_normal(m, v, *(p.mean(1) for p in model.z_prior)),
    "You evaluate log p(z) at the mean of q(z|x); evaluate it at the draw z.":
        lambda model, m, v, z: ut.log_normal(z, m, v) - model.log_p_z(m),
    "You sum log p(z) over the batch; average it.":
        lambda model, m, v, z: (ut.log_normal(z, m, v) - model.log_p_z(z).sum()),
    "You choose one component at random; use the mixture of all.":
        _one_component,
    "You leave log q(z|x) out of KL; add it.":
        lambda model, m, v, z: -model.log_p_z(z),
    "You evaluate log q at its mean; evaluate it at the draw z.":
        lambda model, m, v, z: ut.log_normal(m, m, v) - model.log_p_z(z),
    "You detach the prior, so the mixture learns nothing; let gradients through.":
        _log_q_over(
            lambda model, z: ut.log_normal_mixture(z, *(p.detach() for p in model.z_prior))),
    "You compute the VAE's KL to N(0, I); estimate KL to the mixture at z.":
        lambda model, m, v, z: ut.kl_normal(m, v, torch.zeros_like(m), torch.ones_like(v)),
    "You average the KLs to the components; estimate KL to the mixture at z.":
        lambda model, m, v, z: ut.kl_normal(m.unsqueeze(1), v.unsqueeze(1), *model.z_prior).mean(1),
}


def _with_z(run):
    def other(model, x, *y):
        kl, given = run(model, *draw(model, x, *y))
        return bound(kl, rec_of(model, x, given, *y))

    return other


enter(ALL, OF_Z, _with_z)
for kind, runs in (("VAE", KL), ("GMVAE", MIXTURE_KL), ("FSVAE", REVERSED_KL)):
    enter(
        f"{kind}.negative_elbo_bound",
        runs,
        lambda run: _with_z(lambda model, m, v, z: (run(model, m, v, z), z)),
    )


def _without_label(model, x, y):
    q_m, q_v, z = draw(model, x, y)
    return bound(kl_of(model, q_m, q_v, z), rec_of(model, x, z, 0 * y))


enter("FSVAE.negative_elbo_bound", {
    "You decode zeros in place of y; pass y to dec.":
        _without_label,
    "You do not pass y to the networks; pass it to enc and dec.":
        lambda model, x, y: bound(*_terms(model, x, 0 * y)),
})
