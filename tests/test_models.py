"""The models: weights, bounds against definitions and integrals, losses and samples."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from codebase import utils as ut
from codebase.models import nns
from codebase.models import ssvae as ssvae_module
from codebase.models import vae as vae_module
from codebase.models.fsvae import FSVAE
from codebase.models.gmvae import GMVAE
from codebase.models.laplace_vae import LaplaceVAE
from codebase.models.likelihoods import Gaussian
from codebase.models.nns import v1, v3
from codebase.models.ssvae import SSVAE
from codebase.models.vae import VAE

MODELS = {
    "vae": lambda: VAE(z_dim=10),
    "gmvae": lambda: GMVAE(z_dim=10, k=50),
    "ssvae": SSVAE,
    "fsvae": FSVAE,
}


def binary_images(n, seed=0):
    return torch.randint(0, 2, (n, 784), generator=torch.Generator().manual_seed(seed)).float()


def some_labels(n):
    return F.one_hot(torch.arange(n) % 10, 10).float()


def some_batch(name, n=6):
    if name == "fsvae":
        x = torch.rand(n, 3072, generator=torch.Generator().manual_seed(0))
        return x, some_labels(n)
    x = binary_images(n)
    return (x, binary_images(10, seed=1), some_labels(10)) if name == "ssvae" else (x,)


# Weights: names, shapes, and the order in which they are drawn


def mlp(prefix, sizes):
    shapes = {}
    for layer, (n_in, n_out) in zip((0, 2, 4), zip(sizes, sizes[1:], strict=False), strict=False):
        shapes[f"{prefix}.net.{layer}.weight"] = (n_out, n_in)
        shapes[f"{prefix}.net.{layer}.bias"] = (n_out,)
    return shapes


PRIOR = {"z_prior_m": (1,), "z_prior_v": (1,)}
SHAPES = {
    "vae": mlp("enc", (784, 300, 300, 20)) | mlp("dec", (10, 300, 300, 784)) | PRIOR,
    "gmvae": mlp("enc", (784, 300, 300, 20))
    | mlp("dec", (10, 300, 300, 784))
    | {"z_pre": (1, 100, 10), "pi": (50,)},
    "ssvae": mlp("enc", (794, 300, 300, 128))
    | mlp("dec", (74, 300, 300, 784))
    | mlp("cls", (784, 300, 300, 10))
    | PRIOR,
    "fsvae": mlp("enc", (3082, 500, 500, 20)) | mlp("dec", (20, 500, 500, 3072)) | PRIOR,
}


@pytest.mark.parametrize("name", MODELS)
def test_state_dict(name):
    model = MODELS[name]()
    assert {key: tuple(t.shape) for key, t in model.state_dict().items()} == SHAPES[name]
    assert "z_prior_m" not in dict(model.named_parameters())  # not trained
    assert "pi" not in dict(model.named_parameters())


def test_defaults():
    assert (VAE().z_dim, VAE().name) == (2, "vae")
    assert (GMVAE().z_dim, GMVAE().k, GMVAE().name) == (2, 500, "gmvae")
    assert (SSVAE().z_dim, SSVAE().y_dim, SSVAE().name) == (64, 10, "ssvae")
    assert (SSVAE().gen_weight, SSVAE().class_weight) == (1, 100)
    assert (FSVAE().z_dim, FSVAE().y_dim, FSVAE().name) == (10, 10, "fsvae")
    assert torch.equal(GMVAE(k=4).pi, torch.full((4,), 0.25))
    for name in ("v9", "..", ".v1", "", 1.5):
        with pytest.raises(ValueError, match="no architecture"):
            VAE(nn=name)


def test_an_architecture_that_lacks_a_package(tmp_path, monkeypatch):
    """It says which package, not that there is no such architecture."""
    (tmp_path / "mine.py").write_text("import a_package_that_nobody_has", encoding="utf-8")
    monkeypatch.setattr(nns, "__path__", [*nns.__path__, str(tmp_path)])
    with pytest.raises(ModuleNotFoundError, match="a_package_that_nobody_has"):
        VAE(nn="mine")


def test_weights_are_drawn_in_order():
    """enc, dec, cls, then z_pre: one seed gives everyone the same weights."""

    def drawn(*shapes):
        for n_in, n_out in shapes:
            yield from torch.nn.Linear(n_in, n_out).parameters()

    torch.manual_seed(5)
    parameters = dict(GMVAE(z_dim=3, k=4).named_parameters())
    torch.manual_seed(5)
    linear = list(drawn((784, 300), (300, 300), (300, 6), (3, 300), (300, 300), (300, 784)))
    names = [n for n in SHAPES["gmvae"] if n.startswith(("enc", "dec"))]
    assert all(torch.equal(parameters[n], p) for n, p in zip(names, linear, strict=True))
    assert torch.equal(parameters["z_pre"], torch.randn(1, 8, 3) / np.sqrt(4 * 3))

    torch.manual_seed(5)
    ssvae = SSVAE().state_dict()
    torch.manual_seed(5)
    layers = [s[::-1] for n, s in SHAPES["ssvae"].items() if n.endswith("weight")]
    linear = list(drawn(*layers))
    names = [n for n in SHAPES["ssvae"] if not n.startswith("z_prior")]
    assert all(torch.equal(ssvae[n], p) for n, p in zip(names, linear, strict=True))


# Bounds


def test_the_homeworks_check():
    torch.manual_seed(0)
    x = torch.randint(0, 2, (97, 784)).float()
    model = VAE(z_dim=10)
    torch.manual_seed(0)
    assert abs(model.negative_iwae_bound(x, 10)[0].item() - 544.36072) <= 6.1e-5


def plain_log_normal(x, m, v):
    return -0.5 * (math.log(2 * math.pi) + v.log() + (x - m) ** 2 / v).sum(-1)


def plain_bounds(model, x, iw):
    """VAE's and GMVAE's bounds from their definitions, every row spelt out."""
    m, h = model.enc.net(x).chunk(2, dim=-1)
    m, v = m.repeat(iw, 1), (F.softplus(h) + 1e-8).repeat(iw, 1)
    x = x.repeat(iw, 1)
    z = m + v.sqrt() * torch.randn(m.shape, dtype=m.dtype)
    if isinstance(model, GMVAE):
        means, h = model.z_pre[0].chunk(2, dim=0)
        log_p = plain_log_normal(z[:, None], means, F.softplus(h) + 1e-8)
        log_p_z = torch.logsumexp(log_p, 1) - math.log(model.k)
    else:
        log_p_z = plain_log_normal(z, torch.zeros_like(z), torch.ones_like(z))
    logits = model.dec.net(z)
    rec = F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(-1)
    kl = plain_log_normal(z, m, v) - log_p_z
    niwae = -(torch.logsumexp(-(kl + rec).view(iw, -1), 0) - math.log(iw)).mean()
    if iw == 1 and not isinstance(model, GMVAE):
        kl = 0.5 * (m**2 + v - 1 - v.log()).sum(-1)
    return niwae, kl.mean(), rec.mean()


@pytest.mark.parametrize("name", ["vae", "gmvae"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bounds_equal_the_plain_formula(name, dtype):
    """To one float32 step of the bound; the draws are one normal tensor in the documented order."""
    model = MODELS[name]().to(dtype)
    x = binary_images(97).to(dtype)
    step = 2.0**-14 if dtype == torch.float32 else 1e-9  # a float32 step at 512 to 1024
    for iw in (1, 10):
        torch.manual_seed(1)
        niwae, kl, rec = model.negative_iwae_bound(x, iw)
        torch.manual_seed(1)
        reference = plain_bounds(model, x, iw)
        assert abs(niwae - reference[0]) <= step
        assert abs(rec - reference[2]) <= step
        assert iw == 1 or abs(kl - reference[1]) <= step
    torch.manual_seed(1)
    nelbo, kl, rec = model.negative_elbo_bound(x)
    torch.manual_seed(1)
    _, kl_reference, rec_reference = plain_bounds(model, x, 1)
    assert abs(kl - kl_reference) <= step and abs(rec - rec_reference) <= step
    assert abs(nelbo - (kl_reference + rec_reference)) <= step and nelbo == kl + rec


def test_iwae_in_slices_is_iwae(monkeypatch):
    model, x = GMVAE(z_dim=3, k=5).double(), binary_images(7).double()
    results = []
    for rows in (10_000, 16, 1):
        monkeypatch.setattr(vae_module, "MAX_ROWS", rows)
        decoded = []
        hook = model.dec.net.register_forward_pre_hook(lambda _, z, d=decoded: d.append(len(z[0])))
        torch.manual_seed(0)
        results.append(torch.stack(model.negative_iwae_bound(x, 12)))
        hook.remove()
        assert max(decoded) <= rows and sum(decoded) == 84
    torch.testing.assert_close(results[0], results[1])
    torch.testing.assert_close(results[0], results[2])
    with pytest.raises(ValueError, match="0"):
        model.negative_iwae_bound(x, 0)


def test_ssvae_bound_equals_a_loop_over_labels():
    torch.manual_seed(0)
    model = SSVAE().double()
    x = binary_images(12).double()
    torch.manual_seed(2)
    bound = torch.stack(model.negative_elbo_bound(x))
    torch.manual_seed(2)
    noise = torch.randn(120, 64, dtype=torch.float64)  # label-major
    q_y = model.cls.net(x).softmax(-1)
    kl_y = (q_y * (q_y * 10).log()).sum(-1)
    kl_z, rec = torch.zeros(12).double(), torch.zeros(12).double()
    for label in range(10):
        y = torch.zeros(12, 10).double()
        y[:, label] = 1
        m, h = model.enc.net(torch.cat([x, y], 1)).chunk(2, 1)
        v = F.softplus(h) + 1e-8
        z = m + v.sqrt() * noise[label * 12 : (label + 1) * 12]
        logits = model.dec.net(torch.cat([z, y], 1))
        nll = F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(1)
        kl_z += q_y[:, label] * 0.5 * (m**2 + v - 1 - v.log()).sum(1)
        rec += q_y[:, label] * nll
    reference = torch.stack([(kl_y + kl_z + rec).mean(), kl_z.mean(), kl_y.mean(), rec.mean()])
    torch.testing.assert_close(bound, reference, rtol=1e-12, atol=1e-12)
    single = model.float()
    torch.manual_seed(2)
    in_float32 = torch.stack(single.negative_elbo_bound(x.float())).double()
    torch.manual_seed(2)
    z = torch.randn(120, 64)  # other numbers than in float64: the same kind of comparison there
    copies = ut.duplicate(x.float(), 10), torch.eye(10).repeat_interleave(12, 0)
    m, v = single.enc.encode(*copies)
    logits = single.dec.decode(m + v.sqrt() * z, copies[1])
    nll = -ut.log_bernoulli_with_logits(copies[0], logits).view(10, 12)
    rec = (single.cls.classify(x.float()).softmax(-1).T * nll).sum(0).mean().double()
    assert abs(in_float32[3] - rec) / rec <= 1e-6


@pytest.mark.parametrize("kind", [VAE, GMVAE])
def test_the_gradient_of_the_iwae_bound_is_the_weighted_sum(kind):
    """Burda et al., eq. 14: Σ w̃_i ∇ log w_i, with the normalised weights w̃_i held constant."""
    torch.manual_seed(0)
    model = kind(z_dim=3).double()
    x = binary_images(4).double()
    for parameter in model.parameters():  # to have weights that are not all alike
        parameter.data *= 2
    torch.manual_seed(1)
    niwae, _, _ = model.negative_iwae_bound(x, 5)
    found = torch.autograd.grad(niwae, model.parameters())
    torch.manual_seed(1)
    kl, rec = model.importance_terms(x, 5)
    assert kl.shape == rec.shape == (5, 4)
    log_w = -(kl + rec)
    weights = log_w.detach().softmax(0)
    assert (1 / weights.square().sum(0) < 4.5).any()  # effective sample sizes below 5
    expected = torch.autograd.grad(-(weights * log_w).sum(0).mean(), model.parameters())
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(niwae, -(log_w.exp().mean(0).log()).mean())


def test_fsvae_bound():
    torch.manual_seed(0)
    model = FSVAE().double()
    x, y = (t.double() for t in some_batch("fsvae"))
    torch.manual_seed(1)
    nelbo, kl_z, rec = model.negative_elbo_bound(x, y)
    torch.manual_seed(1)
    m, h = model.enc.net(torch.cat([x, y], 1)).chunk(2, 1)
    v = F.softplus(h) + 1e-8
    z = m + v.sqrt() * torch.randn(6, 10, dtype=torch.float64)
    mean = model.dec.net(torch.cat([z, y], 1))
    reference = torch.distributions.Normal(mean, math.sqrt(0.1)).log_prob(x).sum(1)
    torch.testing.assert_close(rec, -reference.mean())
    torch.testing.assert_close(kl_z, 0.5 * (m**2 + v - 1 - v.log()).sum(1).mean())
    assert nelbo == kl_z + rec


def test_sampled_kl_agrees_with_the_closed_form():
    torch.manual_seed(0)
    x = binary_images(3).double()
    for model in (VAE(z_dim=4), LaplaceVAE(z_dim=4)):
        model.double()
        with torch.no_grad():
            _, kl, _ = model.negative_elbo_bound(x)
            q_m, q_v = (t.repeat(100_000, 1) for t in model.enc.encode(x))
            z = model.sample_q(q_m, q_v)
            sampled = model.log_q(z, q_m, q_v) - model.log_p_z(z)
        error = sampled.std() / math.sqrt(len(sampled))
        assert abs(sampled.mean() - kl) < 4 * error and error < 0.01


@pytest.mark.parametrize(
    "build",
    [
        lambda: VAE(z_dim=1),
        lambda: GMVAE(z_dim=1, k=3),
        lambda: LaplaceVAE(z_dim=1),
        lambda: VAE(nn="v3", z_dim=1, likelihood=Gaussian(0.392, squash=torch.sigmoid)),
        lambda: LaplaceVAE(z_dim=1, likelihood=Gaussian(0.1, squash=torch.sigmoid)),
    ],
    ids=["vae", "gmvae", "laplace", "gaussian likelihood", "laplace and gaussian"],
)
@torch.no_grad()
def test_bounds_against_numerical_integration(build):
    """ELBO ≤ IWAE-10 ≤ IWAE-1000 ≤ log p(x), and IWAE-1000 within 0.05 nats of it."""
    torch.manual_seed(0)
    model = build().double()
    for parameter in model.dec.parameters():  # an untrained decoder hardly depends on z
        parameter.mul_(1.5)
    binary = model.likelihood.binary
    x = binary_images(4).double() if binary else torch.rand(4, 784).double()
    z = torch.linspace(-15, 15, 6001, dtype=torch.float64)[:, None]
    m, v = model.z_prior
    if isinstance(model, GMVAE):
        densities = torch.distributions.Normal(m[0].T, v[0].sqrt().T).log_prob(z).exp()
        prior = densities.mean(1).log()
    else:
        kind = torch.distributions.Laplace if isinstance(model, LaplaceVAE) else None
        prior = (kind or torch.distributions.Normal)(m, v).log_prob(z).squeeze(1)
    outputs = model.dec.net(z)
    log_p_x = []
    for x_i in x:
        if binary:
            log_p = torch.distributions.Bernoulli(logits=outputs).log_prob(x_i).sum(1)
        else:
            scale = math.sqrt(model.likelihood.variance)
            normal = torch.distributions.Normal(outputs.sigmoid(), scale)
            log_p = normal.log_prob(x_i).sum(1)
        log_p_x.append(torch.logsumexp(log_p + prior, 0) + math.log(30 / 6000))
    log_p_x = torch.stack(log_p_x).mean()

    def mean_and_error(bound, repeats):
        values = torch.stack([-bound()[0] for _ in range(repeats)])
        return values.mean(), values.std() / math.sqrt(repeats)

    elbo, error_1 = mean_and_error(lambda: model.negative_elbo_bound(x), 100)
    iwae_10, error_10 = mean_and_error(lambda: model.negative_iwae_bound(x, 10), 100)
    iwae_1000, error_1000 = mean_and_error(lambda: model.negative_iwae_bound(x, 1000), 10)
    assert elbo <= iwae_10 + 3 * (error_1 + error_10)
    assert iwae_10 <= iwae_1000 + 3 * (error_10 + error_1000)
    assert iwae_1000 <= log_p_x + 3 * error_1000
    assert abs(iwae_1000 - log_p_x) < 0.05


# Losses


@pytest.mark.parametrize("name", MODELS)
def test_loss_and_summaries(name):
    torch.manual_seed(0)
    model, batch = MODELS[name](), some_batch(name)
    torch.manual_seed(1)
    loss, summaries = model.loss(*batch)
    torch.manual_seed(1)
    bound = model.negative_elbo_bound(*(batch[:1] if name == "ssvae" else batch))
    tags = {"train/loss", "gen/elbo", "gen/kl_z", "gen/rec"}
    if name == "ssvae":
        tags |= {"gen/kl_y", "class/ce", "class/acc"}
        x, xl, yl = batch
        ce = model.classification_cross_entropy(xl, yl)
        torch.testing.assert_close(ce, -(model.cls.net(xl).log_softmax(1) * yl).sum(1).mean())
        torch.testing.assert_close(loss, bound[0] + 100 * ce)
        found = model.cls.net(xl).argmax(1) == yl.argmax(1)
        torch.testing.assert_close(summaries["class/acc"], found.float().mean())
    else:
        torch.testing.assert_close(loss, bound[0])
    assert summaries.keys() == tags
    torch.testing.assert_close(-summaries["gen/elbo"], bound[0])
    torch.testing.assert_close(summaries["gen/rec"], bound[-1])
    divergences = [summaries[tag] for tag in sorted(tags) if "kl" in tag]
    torch.testing.assert_close(divergences, [*reversed(bound[1:-1])])  # KL_y comes before KL_z
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", MODELS)
def test_reconstruction(name):
    """The mean of the images at the mean of q(z|x), or of q(z|x, y) for the label that is found."""
    torch.manual_seed(0)
    model = MODELS[name]()
    observed = some_batch(name)[: 2 if name == "fsvae" else 1]
    x, *y = observed
    if name == "ssvae":
        y = [torch.eye(10)[model.cls.net(x).argmax(1)]]
        assert len(set(y[0].argmax(1).tolist())) > 1
    m = model.enc.net(torch.cat([x, *y], 1)).chunk(2, 1)[0]
    torch.testing.assert_close(model.infer_latents(*observed), (m, *y))
    h = model.dec.net(torch.cat([m, *y], 1))
    means = h if name == "fsvae" else h.sigmoid()
    torch.testing.assert_close(model.reconstruct(*observed), means)


def all_labels(model, x, noise):
    """The SSVAE's bound as a sum over all labels, one after another."""
    log_q_y = model.cls.net(x).log_softmax(-1)
    bound = (log_q_y.exp() * (log_q_y + math.log(10))).sum(-1)
    for label, of_label in enumerate(noise):
        y = torch.eye(10, dtype=x.dtype)[label].expand(len(x), 10)
        m, v = model.enc.encode(x, y)
        z = m + v.sqrt() * of_label
        term = ut.kl_normal(m, v, *model.z_prior) - model.likelihood.log_prob(x, model.dec(z, y))
        bound = bound + log_q_y[:, label].exp() * term
    return bound.mean()


@pytest.mark.parametrize("certainty", [1, 500])
def test_ssvae_leaves_out_only_labels_that_cannot_be_seen(certainty, monkeypatch):
    """Value and gradient are as close to a float64 sum over all labels as with all labels.

    For an unsure classifier, where all labels count, and a sure one, where a threshold of 1e-3
    would be seen.
    """
    torch.manual_seed(0)
    model, x, noise = SSVAE(), binary_images(60), torch.randn(10, 60, 64)
    model.cls.net[4].weight.data *= certainty
    double = SSVAE().double()
    double.load_state_dict(model.state_dict())
    all_labels(double, x.double(), noise.double()).backward()
    expected = all_labels(double, x.double(), noise.double()).item()
    exact = torch.cat([p.grad.flatten() for p in double.parameters()])
    monkeypatch.setattr(ut, "sample_gaussian", lambda m, v: noise)

    def errors(least):
        monkeypatch.setattr("codebase.models.ssvae.NEGLIGIBLE_EPSILONS", least)
        model.zero_grad()
        bound = model.negative_elbo_bound(x)[0]
        bound.backward()
        found = torch.cat([p.grad.flatten() for p in model.parameters()]).double()
        return abs(bound.item() - expected), ((found - exact).norm() / exact.norm()).item()

    own, none, large = ssvae_module.NEGLIGIBLE_EPSILONS, -1, 1e-3 / torch.finfo(x.dtype).eps
    (value, gradient), (rounding, of_gradient) = errors(own), errors(none)
    assert value < rounding + 1e-4 and gradient < 1.2 * of_gradient < 1e-4
    monkeypatch.setattr("codebase.models.ssvae.NEGLIGIBLE_EPSILONS", own)
    q_y = model.cls.classify(x).softmax(-1).T.detach()
    label, image = model.pairs_that_count(q_y)
    assert len(label) == len(set(zip(label.tolist(), image.tolist(), strict=True)))
    assert len(label) == 600 if certainty == 1 else len(label) < 400
    if certainty > 1:
        value, gradient = errors(large)
        assert value > rounding + 1e-4 and gradient > 2 * of_gradient


def test_ssvae_hides_no_number_that_is_none():
    model = SSVAE()
    model.cls.net[4].bias.data[3] = math.nan
    assert all(term.isnan() for term in model.negative_elbo_bound(binary_images(2)))


def test_ssvae_uses_all_labels_on_other_devices():
    """Counting them would make the host wait; on "meta" it is impossible."""
    label, image = SSVAE().pairs_that_count(torch.empty(10, 6, device="meta"))
    assert label.shape == image.shape == (60,)


def test_ssvae_uses_all_labels_inside_torch_compile(monkeypatch):
    """Compiled code has fixed shapes. The value is the same: so are the draws."""
    torch.manual_seed(0)
    model, x = SSVAE(), binary_images(6)
    model.cls.net[4].weight.data *= 500
    bounds = []
    for compiling in (False, True):
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda c=compiling: c)
        torch.manual_seed(1)
        bounds.append(torch.stack(model.negative_elbo_bound(x)))
        label, _ = model.pairs_that_count(model.cls(x).softmax(-1).T)
        assert (len(label) == 60) is compiling
    torch.testing.assert_close(*bounds)


def test_ssvae_without_generative_weight_computes_no_generative_term(monkeypatch):
    model = SSVAE(gen_weight=0)
    monkeypatch.setattr(model, "negative_elbo_bound", None)
    x, xl, yl = some_batch("ssvae")
    loss, summaries = model.loss(x, xl, yl)
    torch.testing.assert_close(loss, 100 * model.classification_cross_entropy(xl, yl))
    assert summaries["gen/elbo"] == 0


def test_gradient_with_beta_is_the_sum_of_its_parts():
    x = binary_images(5).double()
    torch.manual_seed(0)
    weights = VAE(z_dim=3).double().state_dict()

    def gradient(beta, part):
        model = VAE(z_dim=3, beta=beta).double()
        model.load_state_dict(weights)
        torch.manual_seed(1)
        _, kl, rec = model.negative_elbo_bound(x)
        torch.manual_seed(1)
        loss, summaries = model.loss(x)
        assert summaries["gen/elbo"] == -(kl + rec)  # unweighted
        {"loss": loss, "kl": kl, "rec": rec}[part].backward()
        return torch.cat(
            [
                torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten()
                for p in model.parameters()
            ]
        )

    for beta in (1, 4):
        parts = gradient(beta, "rec") + beta * gradient(beta, "kl")
        torch.testing.assert_close(gradient(beta, "loss"), parts)


# Sampling


@pytest.mark.parametrize("name", ["vae", "gmvae", "ssvae"])
def test_sampling(name):
    torch.manual_seed(0)
    model = MODELS[name]()
    z = model.sample_z(5)
    assert z.shape == (5, model.z_dim)
    given = (z, some_labels(5)) if name == "ssvae" else (z,)
    mean = model.compute_sigmoid_given(*given)
    assert mean.shape == (5, 784) and 0 < mean.min() and mean.max() < 1
    for x in (model.sample_x(5), model.sample_x_given(*given)):
        assert x.shape == (5, 784) and set(x.unique().tolist()) <= {0.0, 1.0}
    assert model.sample_sigmoid(5).shape == (5, 784)
    many = model.sample_x_given(*(t[:1].expand(4000, -1) for t in given)).mean(0)
    assert (many - mean[0]).abs().max() < 5 * 0.5 / math.sqrt(4000)


def test_sampling_z():
    model = VAE(z_dim=3)
    torch.manual_seed(0)
    z = model.sample_z(7)
    torch.manual_seed(0)
    assert torch.equal(z, torch.randn(7, 3))
    m, v = model.z_prior
    assert torch.equal(m, torch.zeros(1)) and torch.equal(v, torch.ones(1))

    model = GMVAE(z_dim=3, k=4)
    torch.manual_seed(0)
    z = model.sample_z(7)
    torch.manual_seed(0)
    component = torch.distributions.Categorical(model.pi).sample((7,))
    m, v = ut.gaussian_parameters(model.z_pre, dim=1)
    assert torch.equal(z, m[0, component] + v[0, component].sqrt() * torch.randn(7, 3))

    z = LaplaceVAE(z_dim=3).sample_z(50_000)
    assert abs(z.abs().mean() - 1) < 0.02  # E|z| of Laplace(0, 1)


def test_fsvae_sampling():
    model = FSVAE()
    z, y = model.sample_z(4), some_labels(4)
    assert model.compute_mean_given(z, y).shape == (4, 3072)
    sheet = model.compute_mean_given(z, torch.eye(10)[:, None])
    assert sheet.shape == (10, 4, 3072)
    torch.testing.assert_close(sheet[3, 2], model.compute_mean_given(z[2], torch.eye(10)[3]))


def test_gaussian_likelihood_samples():
    model = VAE(likelihood=Gaussian(0.25, squash=torch.sigmoid))
    z = model.sample_z(1)
    x = model.sample_x_given(z.expand(4000, -1))
    deviation = x - model.compute_mean_given(z)
    assert abs(deviation.mean()) < 0.01 and abs(deviation.var() - 0.25) < 0.01
    assert 0 < model.compute_mean_given(z).min() and model.compute_mean_given(z).max() < 1
    assert torch.equal(model.likelihood.observe(x), x)


# Architectures


def test_networks():
    x, y = binary_images(4), some_labels(4)
    encoder, decoder, classifier = v1.Encoder(5, 10), v1.Decoder(5, 10), v1.Classifier(10)
    m, v = encoder.encode(x, y)
    h = encoder.net(torch.cat([x, y], 1))  # x first
    assert torch.equal(m, h[:, :5]) and torch.equal(v, F.softplus(h[:, 5:]) + 1e-8)
    assert torch.equal(encoder(x, y)[0], m)
    assert torch.equal(decoder(m, y), decoder.net(torch.cat([m, y], 1)))
    assert torch.equal(classifier(x), classifier.classify(x))
    assert [type(layer).__name__ for layer in encoder.net] == ["Linear", "ELU"] * 2 + ["Linear"]
    assert [type(layer).__name__ for layer in classifier.net] == ["Linear", "ReLU"] * 2 + ["Linear"]
    every_label = encoder.encode(x, torch.eye(10)[:, None])[0]
    assert every_label.shape == (10, 4, 5)
    for i in range(4):
        torch.testing.assert_close(every_label[i, i], m[i])


def test_v3_starts_as_it_should():
    torch.manual_seed(0)
    encoder, decoder = v3.Encoder(20), v3.Decoder(20)
    shapes = [tuple(layer.weight.shape) for layer in (*encoder.net[::2], *decoder.net[::2])]
    assert shapes == [(512, 784), (40, 512), (512, 20), (784, 512)]
    assert isinstance(encoder.net[1], torch.nn.ReLU) and isinstance(decoder.net[1], torch.nn.ReLU)
    for weight in (encoder.net[2].weight[:20], decoder.net[0].weight):
        n = weight.numel()
        assert abs(weight.mean()) < 4 * 0.01 / math.sqrt(n)
        assert abs(weight.std() - 0.01) < 4 * 0.01 / math.sqrt(2 * n)
    assert encoder.net[2].weight[20:].std() > 0.02  # the variance's rows start as torch's do
    for layer in (*encoder.net[::2], *decoder.net[::2]):
        assert (layer.bias == 0).all()
