"""Mistakes in the ELBO of the VAE and of the GMVAE."""

import math

import torch

from codebase import utils as ut
from codebase.homework.mistakes.catalogue import mistake
from codebase.homework.mistakes.parts import bound, draw, log_standard, reconstruction


def _elbo(model, x):
    """KL and reconstruction term of each image, as they should be."""
    q_m, q_v, z = draw(model, x)
    return model.kl_to_prior(z, q_m, q_v), reconstruction(model, x, z)


@mistake("elbo", "sign of rec", "nelbo.rec", "The reconstruction term has the wrong sign.")
def _(model, x):
    kl, rec = _elbo(model, x)
    return bound(kl, -rec)


@mistake("elbo", "sign of kl", "nelbo.kl", "KL has the wrong sign.")
def _(model, x):
    kl, rec = _elbo(model, x)
    return bound(-kl, rec)


@mistake("elbo", "sign of all", "nelbo.kl.rec", "This is the ELBO and its terms, not the negative.")
def _(model, x):
    kl, rec = _elbo(model, x)
    return bound(-kl, -rec)


@mistake("elbo", "sign of the bound", "nelbo", "This is the ELBO; the negative ELBO is wanted.")
def _(model, x):
    nelbo, kl, rec = bound(*_elbo(model, x))
    return -nelbo, kl, rec


@mistake("elbo", "sign of rec returned", "rec", "The bound is right, but rec has the wrong sign.")
def _(model, x):
    nelbo, kl, rec = bound(*_elbo(model, x))
    return nelbo, kl, -rec


@mistake("elbo", "kl and rec left 0", "kl.rec", "The bound is right, but kl and rec are left 0.")
def _(model, x):
    nelbo, kl, rec = bound(*_elbo(model, x))
    return nelbo, 0 * kl.detach(), 0 * rec.detach()


@mistake("elbo", "kl and rec exchanged", "kl.rec", "kl and rec are returned in each other's place.")
def _(model, x):
    nelbo, kl, rec = bound(*_elbo(model, x))
    return nelbo, rec, kl


@mistake("elbo", "rec subtracted", "nelbo", "In the bound, rec is subtracted from kl, not added.")
def _(model, x):
    _nelbo, kl, rec = bound(*_elbo(model, x))
    return kl - rec, kl, rec


@mistake("elbo", "kl subtracted", "nelbo", "In the bound, kl is subtracted from rec, not added.")
def _(model, x):
    _nelbo, kl, rec = bound(*_elbo(model, x))
    return rec - kl, kl, rec


@mistake("elbo", "kl left out", "nelbo|nelbo.gradient", "KL is missing from the bound.")
def _(model, x):
    nelbo, kl, rec = bound(*_elbo(model, x))
    return rec, kl, rec


@mistake("elbo", "rec left out", "nelbo.gradient", "rec is missing from the bound.")
def _(model, x):
    nelbo, kl, rec = bound(*_elbo(model, x))
    return kl, kl, rec


@mistake("elbo", "averaged over pixels", "nelbo.rec", "rec is a sum over pixels, not their mean.")
def _(model, x):
    kl, rec = _elbo(model, x)
    return bound(kl, rec / x.shape[-1])


@mistake(
    "elbo", "not averaged over the batch", "nelbo.kl.rec", "The mean over the batch is missing."
)
def _(model, x):
    kl, rec = _elbo(model, x)
    return kl + rec, kl, rec


@mistake("elbo", "summed over the batch", "nelbo.kl.rec", "Average over the batch, do not sum.")
def _(model, x):
    kl, rec = _elbo(model, x)
    return bound(kl * len(x), rec * len(x))


@mistake("elbo", "z is detached", "gradient", "z is detached: rec does not train the encoder.")
def _(model, x):
    q_m, q_v, z = draw(model, x)
    return bound(model.kl_to_prior(z, q_m, q_v), reconstruction(model, x, z.detach()))


@mistake("elbo", "without gradient", "gradient", "The bound is detached: it trains nothing.")
def _(model, x):
    return tuple(term.detach() for term in bound(*_elbo(model, x)))


@mistake("elbo", "z from the prior", "nelbo.rec", "z is drawn from p(z), not from q(z|x).")
def _(model, x):
    q_m, q_v, z = draw(model, x)
    z_p = torch.randn_like(z)
    return bound(model.kl_to_prior(z, q_m, q_v), reconstruction(model, x, z_p))


@mistake("elbo", "sigmoid twice", "nelbo.rec", "The decoder gives logits: no sigmoid before it.")
def _(model, x):
    q_m, q_v, z = draw(model, x)
    logits = model.dec.decode(z).sigmoid()
    return bound(model.kl_to_prior(z, q_m, q_v), -ut.log_bernoulli_with_logits(x, logits))


@mistake("elbo", "probabilities clipped", "nelbo.rec", "Probabilities are clipped in the bound.")
def _(model, x):
    q_m, q_v, z = draw(model, x)
    p = model.dec.decode(z).sigmoid().clamp(0.5, 1 - 1e-6)
    rec = -(x * p.log() + (1 - x) * (1 - p).log()).sum(-1)
    return bound(model.kl_to_prior(z, q_m, q_v), rec)


@mistake(
    "elbo", "squared error", "nelbo.rec", "rec is −log p(x|z) of a Bernoulli, no squared error."
)
def _(model, x):
    q_m, q_v, z = draw(model, x)
    rec = ((model.dec.decode(z).sigmoid() - x) ** 2).sum(-1)
    return bound(model.kl_to_prior(z, q_m, q_v), rec)


@mistake(
    "elbo", "logits and images exchanged", "nelbo.rec", "The arguments x and logits, exchanged."
)
def _(model, x):
    q_m, q_v, z = draw(model, x)
    rec = -ut.log_bernoulli_with_logits(model.dec.decode(z), x)
    return bound(model.kl_to_prior(z, q_m, q_v), rec)


@mistake("vae", "z is the mean", "nelbo.rec", "z is q's mean: the draw from q(z|x) is missing.")
def _(model, x):
    q_m, q_v = model.enc.encode(x)
    return bound(ut.kl_normal(q_m, q_v, *model.z_prior), reconstruction(model, x, q_m))


@mistake("vae", "KL reversed", "nelbo.kl", "This is KL(p ‖ q); KL(q ‖ p) is wanted.")
def _(model, x):
    q_m, q_v, z = draw(model, x)
    p_m, p_v = (p.expand_as(z) for p in model.z_prior)
    return bound(ut.kl_normal(p_m, p_v, q_m, q_v), reconstruction(model, x, z))


@mistake("vae", "KL averaged over dimensions", "nelbo.kl", "KL is a sum over the dimensions of z.")
def _(model, x):
    kl, rec = _elbo(model, x)
    return bound(kl / model.z_dim, rec)


@mistake("vae", "KL without ½", "nelbo.kl", "The ½ of KL between Gaussians is missing.")
def _(model, x):
    kl, rec = _elbo(model, x)
    return bound(2 * kl, rec)


@mistake("vae", "KL of the deviation", "nelbo.kl", "kl_normal is given √v; it wants variances.")
def _(model, x):
    q_m, q_v, z = draw(model, x)
    return bound(ut.kl_normal(q_m, q_v.sqrt(), *model.z_prior), reconstruction(model, x, z))


@mistake("vae", "KL of the squared variance", "nelbo.kl", "kl_normal is given v²; it wants v.")
def _(model, x):
    q_m, q_v, z = draw(model, x)
    return bound(ut.kl_normal(q_m, q_v**2, *model.z_prior), reconstruction(model, x, z))


@mistake("vae", "KL of the sample", "nelbo.kl", "KL is given z where it wants q's mean.")
def _(model, x):
    q_m, q_v, z = draw(model, x)
    return bound(ut.kl_normal(z, q_v, *model.z_prior), reconstruction(model, x, z))


@mistake(
    "gmvae", "z is the mean", "nelbo.kl.rec", "z is q's mean: the draw from q(z|x) is missing."
)
def _(model, x):
    q_m, q_v = model.enc.encode(x)
    return bound(model.kl_to_prior(q_m, q_m, q_v), reconstruction(model, x, q_m))


@mistake("gmvae", "prior N(0, I)", "nelbo.kl.gradient", "The prior is the mixture, not N(0, I).")
def _(model, x):
    q_m, q_v, z = draw(model, x)
    return bound(ut.log_normal(z, q_m, q_v) - log_standard(z), reconstruction(model, x, z))


@mistake(
    "gmvae",
    "KL to N(0, I)",
    "nelbo.kl.gradient",
    "The prior is the mixture; this is the VAE's KL to N(0, I).",
)
def _(model, x):
    q_m, q_v, z = draw(model, x)
    zero, one = torch.zeros_like(q_m), torch.ones_like(q_v)
    return bound(ut.kl_normal(q_m, q_v, zero, one), reconstruction(model, x, z))


@mistake(
    "gmvae",
    "mean of KLs",
    "nelbo.kl",
    "KL to a mixture is not the mean of the KLs to its components.",
)
def _(model, x):
    q_m, q_v, z = draw(model, x)
    p_m, p_v = model.z_prior
    kl = ut.kl_normal(q_m.unsqueeze(1), q_v.unsqueeze(1), p_m, p_v).mean(1)
    return bound(kl, reconstruction(model, x, z))


@mistake("gmvae", "first component", "nelbo.kl", "The prior is the first component alone.")
def _(model, x):
    q_m, q_v, z = draw(model, x)
    p_m, p_v = model.z_prior
    kl = ut.log_normal(z, q_m, q_v) - ut.log_normal(z, p_m[:, 0], p_v[:, 0])
    return bound(kl, reconstruction(model, x, z))


@mistake("gmvae", "prior without − log k", "nelbo.kl", "The mixture's weights 1/k are missing.")
def _(model, x):
    kl, rec = _elbo(model, x)
    return bound(kl - math.log(model.k), rec)


@mistake("gmvae", "prior's variance ignored", "nelbo.kl", "The prior's variances are ignored.")
def _(model, x):
    q_m, q_v, z = draw(model, x)
    p_m, p_v = model.z_prior
    prior = ut.log_normal_mixture(z, p_m, torch.ones_like(p_v))
    return bound(ut.log_normal(z, q_m, q_v) - prior, reconstruction(model, x, z))


@mistake(
    "gmvae",
    "z_pre unsplit",
    "nelbo.kl",
    "z_pre's second half gives variances through softplus; here exp is used.",
)
def _(model, x):
    q_m, q_v, z = draw(model, x)
    p_m, h = model.z_pre.chunk(2, dim=1)
    prior = ut.log_normal_mixture(z, p_m, h.exp())
    return bound(ut.log_normal(z, q_m, q_v) - prior, reconstruction(model, x, z))


@mistake("gmvae", "log q left out", "nelbo.kl", "log q(z|x) is missing from KL.")
def _(model, x):
    q_m, q_v, z = draw(model, x)
    return bound(-model.log_p_z(z), reconstruction(model, x, z))


@mistake("gmvae", "log p left out", "nelbo.kl.gradient", "log p(z) is missing from KL.")
def _(model, x):
    q_m, q_v, z = draw(model, x)
    return bound(ut.log_normal(z, q_m, q_v), reconstruction(model, x, z))


@mistake("gmvae", "q of the mean", "nelbo.kl", "log q is taken at q's mean, not at the draw z.")
def _(model, x):
    q_m, q_v, z = draw(model, x)
    return bound(ut.log_normal(q_m, q_m, q_v) - model.log_p_z(z), reconstruction(model, x, z))


@mistake(
    "gmvae", "prior detached", "gradient", "The prior is detached: the mixture learns nothing."
)
def _(model, x):
    q_m, q_v, z = draw(model, x)
    prior = ut.log_normal_mixture(z, *(p.detach() for p in model.z_prior))
    return bound(ut.log_normal(z, q_m, q_v) - prior, reconstruction(model, x, z))
