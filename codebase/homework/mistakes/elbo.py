"""Mistakes in the ELBO of the VAE and of the GMVAE."""

import functools
import math

import torch

from codebase import utils as ut
from codebase.homework.mistakes.catalogue import mistake
from codebase.homework.mistakes.parts import WRONG_NOISE, bound, draw, log_standard, reconstruction


def _elbo(model, x, sample=ut.sample_gaussian):
    """KL and reconstruction term of each image, as they should be."""
    q_m, q_v, z = draw(model, x, sample=sample)
    return model.kl_to_prior(z, q_m, q_v), reconstruction(model, x, z)


@mistake("elbo", "sign of rec", "nelbo.rec", "You return +log p(x|z) as rec; rec is −log p(x|z).")
def _(model, x):
    kl, rec = _elbo(model, x)
    return bound(kl, -rec)


@mistake("elbo", "sign of kl", "nelbo.kl", "You return −KL; return KL.")
def _(model, x):
    kl, rec = _elbo(model, x)
    return bound(-kl, rec)


@mistake(
    "elbo",
    "sign of all",
    "nelbo.kl.rec",
    "You return the ELBO and its terms; return the negative of all three.",
)
def _(model, x):
    kl, rec = _elbo(model, x)
    return bound(-kl, -rec)


@mistake("elbo", "sign of the bound", "nelbo", "You return the ELBO; return the negative ELBO.")
def _(model, x):
    nelbo, kl, rec = bound(*_elbo(model, x))
    return -nelbo, kl, rec


@mistake(
    "elbo",
    "sign of rec returned",
    "rec",
    "You return rec with the wrong sign; return −log p(x|z). The bound is right.",
)
def _(model, x):
    nelbo, kl, rec = bound(*_elbo(model, x))
    return nelbo, kl, -rec


@mistake(
    "elbo",
    "kl and rec left 0",
    "kl.rec",
    "You return kl and rec as 0; return their values. The bound is right.",
)
def _(model, x):
    nelbo, kl, rec = bound(*_elbo(model, x))
    return nelbo, 0 * kl.detach(), 0 * rec.detach()


@mistake(
    "elbo",
    "kl and rec exchanged",
    "kl.rec",
    "You exchange kl and rec; return the bound, then kl, then rec.",
)
def _(model, x):
    nelbo, kl, rec = bound(*_elbo(model, x))
    return nelbo, rec, kl


@mistake("elbo", "rec subtracted", "nelbo", "You subtract rec from kl in the bound; add them.")
def _(model, x):
    _nelbo, kl, rec = bound(*_elbo(model, x))
    return kl - rec, kl, rec


@mistake("elbo", "kl subtracted", "nelbo", "You subtract kl from rec in the bound; add them.")
def _(model, x):
    _nelbo, kl, rec = bound(*_elbo(model, x))
    return rec - kl, kl, rec


@mistake("elbo", "kl left out", "nelbo|nelbo.gradient", "You leave KL out of the bound; add it.")
def _(model, x):
    nelbo, kl, rec = bound(*_elbo(model, x))
    return rec, kl, rec


@mistake("elbo", "rec left out", "nelbo.gradient", "You leave rec out of the bound; add it.")
def _(model, x):
    nelbo, kl, rec = bound(*_elbo(model, x))
    return kl, kl, rec


@mistake("elbo", "averaged over pixels", "nelbo.rec", "You average rec over pixels; sum over them.")
def _(model, x):
    kl, rec = _elbo(model, x)
    return bound(kl, rec / x.shape[-1])


@mistake(
    "elbo",
    "not averaged over the batch",
    "nelbo.kl.rec",
    "You return one value per image; average over the batch.",
)
def _(model, x):
    kl, rec = _elbo(model, x)
    return kl + rec, kl, rec


@mistake(
    "elbo", "summed over the batch", "nelbo.kl.rec", "You sum over the batch; average over it."
)
def _(model, x):
    kl, rec = _elbo(model, x)
    return bound(kl * len(x), rec * len(x))


@mistake(
    "elbo",
    "z is detached",
    "gradient",
    "You detach z, so rec does not train the encoder; let gradients through.",
)
def _(model, x):
    q_m, q_v, z = draw(model, x)
    return bound(model.kl_to_prior(z, q_m, q_v), reconstruction(model, x, z.detach()))


@mistake(
    "elbo",
    "without gradient",
    "gradient",
    "You detach the bound, so it trains nothing; let gradients through.",
)
def _(model, x):
    return tuple(term.detach() for term in bound(*_elbo(model, x)))


@mistake("elbo", "z from the prior", "nelbo.rec", "You draw z from p(z); draw it from q(z|x).")
def _(model, x):
    q_m, q_v, z = draw(model, x)
    z_p = torch.randn_like(z)
    return bound(model.kl_to_prior(z, q_m, q_v), reconstruction(model, x, z_p))


@mistake(
    "elbo",
    "sigmoid twice",
    "nelbo.rec",
    "You apply a sigmoid to the decoder's output; it returns logits, so pass them on.",
)
def _(model, x):
    q_m, q_v, z = draw(model, x)
    logits = model.dec.decode(z).sigmoid()
    return bound(model.kl_to_prior(z, q_m, q_v), -ut.log_bernoulli_with_logits(x, logits))


@mistake(
    "elbo",
    "probabilities clipped",
    "nelbo.rec",
    "You clip the probabilities; use the logits, which need no clipping.",
)
def _(model, x):
    q_m, q_v, z = draw(model, x)
    p = model.dec.decode(z).sigmoid().clamp(0.5, 1 - 1e-6)
    rec = -(x * p.log() + (1 - x) * (1 - p).log()).sum(-1)
    return bound(model.kl_to_prior(z, q_m, q_v), rec)


@mistake(
    "elbo",
    "squared error",
    "nelbo.rec",
    "You use the squared error; rec is −log p(x|z) of a Bernoulli.",
)
def _(model, x):
    q_m, q_v, z = draw(model, x)
    rec = ((model.dec.decode(z).sigmoid() - x) ** 2).sum(-1)
    return bound(model.kl_to_prior(z, q_m, q_v), rec)


@mistake(
    "elbo", "logits and images exchanged", "nelbo.rec", "You exchange x and logits; pass x first."
)
def _(model, x):
    q_m, q_v, z = draw(model, x)
    rec = -ut.log_bernoulli_with_logits(model.dec.decode(z), x)
    return bound(model.kl_to_prior(z, q_m, q_v), rec)


@mistake(
    "vae",
    "z is the mean",
    "nelbo.rec",
    "You use the mean of q(z|x) as z; draw z with sample_gaussian.",
)
def _(model, x):
    q_m, q_v = model.enc.encode(x)
    return bound(ut.kl_normal(q_m, q_v, *model.z_prior), reconstruction(model, x, q_m))


@mistake("vae", "KL reversed", "nelbo.kl", "You compute KL(p ‖ q); compute KL(q ‖ p).")
def _(model, x):
    q_m, q_v, z = draw(model, x)
    p_m, p_v = (p.expand_as(z) for p in model.z_prior)
    return bound(ut.kl_normal(p_m, p_v, q_m, q_v), reconstruction(model, x, z))


@mistake(
    "vae",
    "KL averaged over dimensions",
    "nelbo.kl",
    "You average KL over the dimensions of z; sum over them.",
)
def _(model, x):
    kl, rec = _elbo(model, x)
    return bound(kl / model.z_dim, rec)


@mistake(
    "vae", "KL without ½", "nelbo.kl", "You leave out the ½ of the KL between Gaussians; add it."
)
def _(model, x):
    kl, rec = _elbo(model, x)
    return bound(2 * kl, rec)


@mistake("vae", "KL of the deviation", "nelbo.kl", "You pass √v to kl_normal; pass the variance.")
def _(model, x):
    q_m, q_v, z = draw(model, x)
    return bound(ut.kl_normal(q_m, q_v.sqrt(), *model.z_prior), reconstruction(model, x, z))


@mistake(
    "vae",
    "KL of the squared variance",
    "nelbo.kl",
    "You pass v² to kl_normal; pass the variance v.",
)
def _(model, x):
    q_m, q_v, z = draw(model, x)
    return bound(ut.kl_normal(q_m, q_v**2, *model.z_prior), reconstruction(model, x, z))


@mistake("vae", "KL of the sample", "nelbo.kl", "You pass z to kl_normal; pass the mean of q(z|x).")
def _(model, x):
    q_m, q_v, z = draw(model, x)
    return bound(ut.kl_normal(z, q_v, *model.z_prior), reconstruction(model, x, z))


@mistake(
    "gmvae",
    "z is the mean",
    "nelbo.kl.rec",
    "You use the mean of q(z|x) as z; draw z with sample_gaussian.",
)
def _(model, x):
    q_m, q_v = model.enc.encode(x)
    return bound(model.kl_to_prior(q_m, q_m, q_v), reconstruction(model, x, q_m))


@mistake(
    "gmvae",
    "prior N(0, I)",
    "nelbo.kl.gradient",
    "You use the prior N(0, I); use the mixture of Gaussians.",
)
def _(model, x):
    q_m, q_v, z = draw(model, x)
    return bound(ut.log_normal(z, q_m, q_v) - log_standard(z), reconstruction(model, x, z))


@mistake(
    "gmvae",
    "KL to N(0, I)",
    "nelbo.kl.gradient",
    "You compute the VAE's KL to N(0, I); estimate KL to the mixture at z.",
)
def _(model, x):
    q_m, q_v, z = draw(model, x)
    zero, one = torch.zeros_like(q_m), torch.ones_like(q_v)
    return bound(ut.kl_normal(q_m, q_v, zero, one), reconstruction(model, x, z))


@mistake(
    "gmvae",
    "mean of KLs",
    "nelbo.kl",
    "You average the KLs to the components; estimate KL to the mixture at z.",
)
def _(model, x):
    q_m, q_v, z = draw(model, x)
    p_m, p_v = model.z_prior
    kl = ut.kl_normal(q_m.unsqueeze(1), q_v.unsqueeze(1), p_m, p_v).mean(1)
    return bound(kl, reconstruction(model, x, z))


@mistake(
    "gmvae",
    "first component",
    "nelbo.kl",
    "You use only the first component as the prior; use the mixture.",
)
def _(model, x):
    q_m, q_v, z = draw(model, x)
    p_m, p_v = model.z_prior
    kl = ut.log_normal(z, q_m, q_v) - ut.log_normal(z, p_m[:, 0], p_v[:, 0])
    return bound(kl, reconstruction(model, x, z))


@mistake(
    "gmvae",
    "prior without − log k",
    "nelbo.kl",
    "You leave out the mixture's weights 1/k; subtract log k from log p(z).",
)
def _(model, x):
    kl, rec = _elbo(model, x)
    return bound(kl - math.log(model.k), rec)


@mistake(
    "gmvae",
    "prior's variance ignored",
    "nelbo.kl",
    "You ignore the prior's variances; pass both means and variances.",
)
def _(model, x):
    q_m, q_v, z = draw(model, x)
    p_m, p_v = model.z_prior
    prior = ut.log_normal_mixture(z, p_m, torch.ones_like(p_v))
    return bound(ut.log_normal(z, q_m, q_v) - prior, reconstruction(model, x, z))


@mistake(
    "gmvae",
    "z_pre unsplit",
    "nelbo.kl",
    "You exponentiate z_pre's second half; use gaussian_parameters, with softplus.",
)
def _(model, x):
    q_m, q_v, z = draw(model, x)
    p_m, h = model.z_pre.chunk(2, dim=1)
    prior = ut.log_normal_mixture(z, p_m, h.exp())
    return bound(ut.log_normal(z, q_m, q_v) - prior, reconstruction(model, x, z))


@mistake(
    "gmvae",
    "log q left out",
    "nelbo.kl",
    "You leave log q(z|x) out of KL; KL is log q(z|x) − log p(z).",
)
def _(model, x):
    q_m, q_v, z = draw(model, x)
    return bound(-model.log_p_z(z), reconstruction(model, x, z))


@mistake(
    "gmvae",
    "log p left out",
    "nelbo.kl.gradient",
    "You leave log p(z) out of KL; KL is log q(z|x) − log p(z).",
)
def _(model, x):
    q_m, q_v, z = draw(model, x)
    return bound(ut.log_normal(z, q_m, q_v), reconstruction(model, x, z))


@mistake(
    "gmvae",
    "q of the mean",
    "nelbo.kl",
    "You evaluate log q at its mean; evaluate it at the draw z.",
)
def _(model, x):
    q_m, q_v, z = draw(model, x)
    return bound(ut.log_normal(q_m, q_m, q_v) - model.log_p_z(z), reconstruction(model, x, z))


@mistake(
    "gmvae",
    "prior detached",
    "gradient",
    "You detach the prior, so the mixture learns nothing; let gradients through.",
)
def _(model, x):
    q_m, q_v, z = draw(model, x)
    prior = ut.log_normal_mixture(z, *(p.detach() for p in model.z_prior))
    return bound(ut.log_normal(z, q_m, q_v) - prior, reconstruction(model, x, z))


# Draws of z, and slips


def _with_noise(sample, model, x):
    return bound(*_elbo(model, x, sample))


for (name, sentence), sample in WRONG_NOISE.items():
    mistake("elbo", name, "nelbo.rec|nelbo.kl.rec", sentence)(
        functools.partial(_with_noise, sample)
    )


@mistake("elbo", "not written", "nelbo.kl.rec.gradient", "You return 0; write the function.")
def _(model, x):
    return torch.zeros(3).unbind()


@mistake(
    "elbo",
    "rec is the mean of kl",
    "nelbo.rec.gradient",
    "You return the mean of kl as rec; return the mean of rec.",
)
def _(model, x):
    kl, _rec = _elbo(model, x)
    return bound(kl, kl)


@mistake("elbo", "kl summed over the batch", "nelbo.kl", "You sum kl over the batch; average it.")
def _(model, x):
    kl, rec = _elbo(model, x)
    return bound(kl * len(x), rec)


@mistake(
    "elbo", "rec summed over the batch", "nelbo.rec", "You sum rec over the batch; average it."
)
def _(model, x):
    kl, rec = _elbo(model, x)
    return bound(kl, rec * len(x))


@mistake(
    "elbo",
    "logits and images exchanged, not averaged",
    "nelbo.rec",
    "You exchange x and logits; pass x first, and average over the batch.",
)
def _(model, x):
    q_m, q_v, z = draw(model, x)
    kl = model.kl_to_prior(z, q_m, q_v).mean()
    rec = -ut.log_bernoulli_with_logits(model.dec.decode(z), x)
    return kl + rec, kl, rec


@mistake(
    "elbo",
    "sampled reconstruction",
    "nelbo.rec.gradient",
    "You sample an image from the decoder; pass its logits to log_bernoulli_with_logits.",
)
def _(model, x):
    q_m, q_v, z = draw(model, x)
    sampled = torch.bernoulli(model.dec.decode(z).sigmoid())
    return bound(model.kl_to_prior(z, q_m, q_v), -ut.log_bernoulli_with_logits(x, sampled))


@mistake(
    "vae",
    "KL of the decoder's output",
    "nelbo.kl",
    "You compute KL of the decoder's output; compute KL of q(z|x).",
)
def _(model, x):
    _q_m, _q_v, z = draw(model, x)
    logits = model.dec.decode(z)
    kl = ut.kl_normal(*ut.gaussian_parameters(logits), *model.z_prior)
    return bound(kl, -ut.log_bernoulli_with_logits(x, logits))
