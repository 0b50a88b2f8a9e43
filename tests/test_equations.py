"""codebase/models/README.md: its statements, its figures and its links."""

import math
import re

import pytest
import torch
import torch.nn.functional as F
from test_models import binary_images

from codebase import ROOT, data, load_run
from codebase import utils as ut
from codebase.models import FSVAE, GMVAE, SSVAE, VAE
from codebase.runs.published import PUBLISHED

PAGE = ROOT / "codebase" / "models" / "README.md"
GRID = torch.linspace(-15, 15, 6001, dtype=torch.float64)[:, None]  # of z, where z_dim is 1
WIDTH = 30 / 6000


def log_p_x_given(model, x, z):
    """log p(x|z), nats: (batch, x_dim), (batch, z_dim) → (batch,)."""
    return model.likelihood.log_prob(x, model.dec.decode(z))


def model_on_a_line(kind=VAE, **options):
    """A model whose integrals over z can be computed, and four images."""
    torch.manual_seed(0)
    model = kind(z_dim=1, **options).double().requires_grad_(False)
    for parameter in model.dec.parameters():  # an untrained decoder hardly depends on z
        parameter.mul_(1.5)
    return model, binary_images(4).double()


def on_the_grid(model, x):
    """log q(z|x) and log p(x, z) for one image, at the points of GRID."""
    q_m, q_v = model.enc.encode(x[None])
    log_q = torch.distributions.Normal(q_m, q_v.sqrt()).log_prob(GRID).squeeze(1)
    log_p_x = torch.distributions.Bernoulli(logits=model.dec.net(GRID)).log_prob(x).sum(1)
    log_p_z = torch.distributions.Normal(0.0, 1.0).log_prob(GRID).squeeze(1)
    return log_q, log_p_x + log_p_z


# 1. The bound


def test_the_gap_is_the_divergence_from_the_posterior():
    model, images = model_on_a_line()
    for x in images[:2]:
        log_q, log_joint = on_the_grid(model, x)
        log_p_x = torch.logsumexp(log_joint, 0) + math.log(WIDTH)
        weights = log_q.exp() * WIDTH
        divergence = (weights * (log_q - (log_joint - log_p_x))).sum()
        assert divergence > 1  # the encoder is not trained
        torch.manual_seed(0)
        rows = x.expand(1000, -1)
        elbos = torch.stack([-model.negative_elbo_bound(rows)[0] for _ in range(30)])
        error = elbos.std() / math.sqrt(len(elbos))
        assert abs(log_p_x - elbos.mean() - divergence) < 4 * error and error < 0.2


# 2. Reparameterisation


def gradients(model, x, draws):
    """Two estimates of d E_q[−log p(x|z)] / d m, a row for each draw; m and v are q's.

    Returns:
        tensors (draws, batch, z_dim): score function, reparameterised; and f (draws, batch)
    """
    with torch.no_grad():
        q_m, q_v = model.enc.encode(x)
    scores, paths, values = [], [], []
    for _ in range(draws):
        m = q_m.clone().requires_grad_(True)
        z = ut.sample_gaussian(m, q_v)
        f = -log_p_x_given(model, x, z)
        (path,) = torch.autograd.grad(f.sum(), m)
        paths.append(path)
        scores.append((z.detach() - q_m) / q_v)
        values.append(f.detach())
    values = torch.stack(values)
    score = values.unsqueeze(-1) * torch.stack(scores)
    centred = (values - values.mean(0)).unsqueeze(-1) * torch.stack(scores)
    return score, centred, torch.stack(paths)


def test_both_gradients_are_right_and_one_is_noisier():
    model, images = model_on_a_line()
    torch.manual_seed(1)
    estimates = gradients(model, images, 2000)
    for i, x in enumerate(images):
        q_m, q_v = model.enc.encode(x[None])
        m = q_m.clone().requires_grad_(True)
        log_q = torch.distributions.Normal(m, q_v.sqrt()).log_prob(GRID).squeeze(1)
        f = -torch.distributions.Bernoulli(logits=model.dec.net(GRID)).log_prob(x).sum(1)
        exact = torch.autograd.grad((log_q.exp() * f).sum() * WIDTH, m)[0].item()
        for estimate in estimates:
            draws = estimate[:, i, 0]
            assert abs(draws.mean() - exact) < 4 * draws.std() / math.sqrt(len(draws))
    score, centred, path = (estimate.var(0).mean() for estimate in estimates)
    assert score > 100 * centred and centred > path


# 4. Mixture priors


def test_the_mixtures_estimate_is_unbiased():
    model, images = model_on_a_line(GMVAE, k=3)
    m, v = model.z_prior
    log_p = torch.distributions.Normal(m[0].T, v[0].sqrt().T).log_prob(GRID).exp().mean(1).log()
    for x in images:
        q_m, q_v = model.enc.encode(x[None])
        log_q = torch.distributions.Normal(q_m, q_v.sqrt()).log_prob(GRID).squeeze(1)
        exact = (log_q.exp() * (log_q - log_p)).sum() * WIDTH
        torch.manual_seed(0)
        q_m, q_v = q_m.expand(100_000, 1), q_v.expand(100_000, 1)
        estimates = model.kl_to_prior(ut.sample_gaussian(q_m, q_v), q_m, q_v)
        error = estimates.std() / math.sqrt(len(estimates))
        assert abs(estimates.mean() - exact) < 4 * error and error < 0.01
        assert (estimates < 0).any()


# 5. Importance weights


@pytest.mark.parametrize("build", [VAE, GMVAE])
def test_more_importance_weights_never_loosen_the_bound(build, monkeypatch):
    """The bound on all draws is at least the mean of the bounds on its parts."""
    torch.manual_seed(0)
    model, x = build(z_dim=3).double(), binary_images(5).double()
    q_m, q_v = model.enc.encode(x)
    z = ut.sample_gaussian(q_m.expand(16, *q_m.shape), q_v.expand(16, *q_v.shape))
    bounds = {}
    for m in (1, 2, 4, 8, 16):
        parts = []
        for draws in z.split(m):
            monkeypatch.setattr(model, "sample_q", lambda *q, d=draws: d.flatten(0, 1))
            parts.append(-model.negative_iwae_bound(x, m)[0])
        bounds[m] = torch.stack(parts).mean()
    ordered = list(bounds.values())
    assert all(a + 1e-6 < b for a, b in zip(ordered, ordered[1:], strict=False)), bounds
    # With one weight it is the ELBO, with KL at the draw.
    kl = torch.stack([model.log_q(d, q_m, q_v) - model.log_p_z(d) for d in z])
    rec = torch.stack([-log_p_x_given(model, x, d) for d in z])
    torch.testing.assert_close(bounds[1], -(kl + rec).mean())


# 6. SSVAE


@torch.no_grad()
def test_the_ssvaes_bound_is_the_joint_bound():
    """E_q(y,z|x) [log p(y) p(z) p(x|y,z) − log q(y|x) q(z|x,y)], every density spelt out."""
    torch.manual_seed(0)
    model, x = SSVAE().double(), binary_images(2).double()
    q_y = torch.distributions.Categorical(logits=3 * model.cls.net(x))
    model.cls.net[4].weight.mul_(3), model.cls.net[4].bias.mul_(3)  # far from uniform
    bound = torch.stack([model.negative_elbo_bound(x)[0] for _ in range(300)])
    joint = []
    for _ in range(2500):
        label = q_y.sample()
        y = F.one_hot(label, 10).double()
        m, h = model.enc.net(torch.cat([x, y], 1)).chunk(2, 1)
        q_z = torch.distributions.Normal(m, (F.softplus(h) + 1e-8).sqrt())
        z = q_z.sample()
        p_x = torch.distributions.Bernoulli(logits=model.dec.net(torch.cat([z, y], 1)))
        log_p = math.log(0.1) + torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1)
        log_p = log_p + p_x.log_prob(x).sum(1)
        joint.append((q_y.log_prob(label) + q_z.log_prob(z).sum(1) - log_p).mean())
    joint = torch.stack(joint)
    error = math.hypot(joint.std() / math.sqrt(len(joint)), bound.std() / math.sqrt(len(bound)))
    assert abs(bound.mean() - joint.mean()) < 4 * error and error < 0.2


@torch.no_grad()
def test_renaming_the_labels_changes_nothing(monkeypatch):
    """Unlabelled images cannot tell which label is which digit."""
    torch.manual_seed(0)
    model, x = SSVAE().double(), binary_images(6).double()
    monkeypatch.setattr(ut, "sample_gaussian", lambda m, v: m)  # draws go with the old names
    before = torch.stack(model.negative_elbo_bound(x))
    order = torch.randperm(10)
    assert not torch.equal(order, torch.arange(10))
    model.cls.net[4].weight.copy_(model.cls.net[4].weight[order])
    only_the_classifier = model.cls.net[4].bias.copy_(model.cls.net[4].bias[order])
    assert len(only_the_classifier) == 10
    assert not torch.allclose(torch.stack(model.negative_elbo_bound(x))[3], before[3], rtol=1e-9)
    for layer, first in ((model.enc.net[0], 784), (model.dec.net[0], 64)):
        layer.weight[:, first:] = layer.weight[:, first:][:, order]
    torch.testing.assert_close(torch.stack(model.negative_elbo_bound(x)), before)


# 7. FSVAE


def test_densities_exceed_one():
    """At its mean an image has a positive log density, the constant of the page."""
    model = FSVAE().double()
    x = torch.rand(2, 3072, dtype=torch.float64)
    peak = model.likelihood.log_prob(x, x)
    assert torch.allclose(peak, torch.tensor(-1536 * math.log(2 * math.pi * 0.1)).double())
    assert (peak > 0).all()


# 8. Rate and distortion


def test_a_higher_beta_gives_a_lower_rate():
    """As beta grows, the rate of the optimum does not rise, whatever rates are possible."""
    generator = torch.Generator().manual_seed(0)
    moved = 0
    for _ in range(100):
        rate, distortion = torch.rand(2, 50, generator=generator)
        best = [(distortion + beta * rate).argmin() for beta in torch.linspace(0.01, 10, 60)]
        assert (rate[best].diff() <= 0).all() and (distortion[best].diff() >= 0).all()
        moved += (rate[best][0] > rate[best][-1]).item()
    assert moved > 80


def test_the_rate_is_information_and_a_mismatch():
    model, images = model_on_a_line()
    q_m, q_v = model.enc.encode(images)
    rate = ut.kl_normal(q_m, q_v, *model.z_prior).mean()
    q = torch.distributions.Normal(q_m.T, q_v.sqrt().T).log_prob(GRID).exp()  # (grid, image)
    q_z = q.mean(1)
    prior = torch.distributions.Normal(0.0, 1.0).log_prob(GRID).squeeze(1)
    information = (q * (q.log() - q_z.log()[:, None])).sum(0).mean() * WIDTH
    mismatch = (q_z * (q_z.log() - prior)).sum() * WIDTH
    assert information > 0 and mismatch > 0
    torch.testing.assert_close(rate, information + mismatch, rtol=1e-6, atol=1e-6)


# The page's figures, from the reference weights


def figures_of_page() -> dict[str, list[str]]:
    """The figures after each mark `<!-- figures: name -->`: of a table, or the next number."""
    found: dict[str, list[str]] = {}
    text = PAGE.read_text(encoding="utf-8")
    inside = re.search(r"\S\n<!--|^<!-- .+ -->.", text, re.M)
    assert inside is None, "a mark at the beginning of a line ends the paragraph"
    for mark in re.finditer(r"<!-- figures: (\w+) -->(\n?)", text):
        rest = text[mark.end() :]
        if mark[2]:
            rows = rest.split("\n\n")[0].splitlines()[2:]
            cells = [cell.strip() for row in rows for cell in row.strip("|").split("|")[1:]]
        else:
            cells = [re.match(r"\d+(\.\d+)?", rest)[0]]
        found.setdefault(mark[1], []).extend(cells)
    return found


@torch.no_grad()
def naive(model, x, draws):
    """−log p(x) by draws from the prior, mean over the images."""
    total = torch.full((len(x),), -torch.inf, dtype=torch.float64)
    for part in model.sample_z(draws).split(1000):
        logits = model.dec.decode(part)
        log_p = x @ logits.T - F.softplus(logits).sum(1)  # (batch, draw)
        total = torch.logaddexp(total, log_p.double().logsumexp(1))
    return -(total - math.log(draws)).mean().item()


@torch.no_grad()
def effective_sample_size(model, x, m):
    sizes = []
    for image in x.split(1):
        q_m, q_v = (t.expand(m, -1) for t in model.enc.encode(image))
        z = model.sample_q(q_m, q_v)
        log_w = model.log_p_z(z) + log_p_x_given(model, image, z) - model.log_q(z, q_m, q_v)
        w = log_w.softmax(0)
        sizes.append(1 / w.square().sum())
    return torch.stack(sizes).mean().item()


@torch.no_grad()
def active_units(model, images):
    return (model.infer_latents(images)[0].var(0) > 0.01).sum().item()


def computed_figures(mnist_dir) -> dict[str, list[float]]:
    torch.manual_seed(0)
    _, (x, _), (images, labels) = data.get_mnist_data("cpu", data_dir=mnist_dir)
    vae, gmvae = load_run("model=vae_z=10_run=0000"), load_run("model=gmvae_z=10_k=500_run=0000")
    ssvaes = [load_run(f"model=ssvae_gw={gw:03d}_cw=100_run=0000") for gw in (0, 1)]
    found = {"naive": [naive(vae, x, 100), naive(vae, x, 10_000)]}
    found["iwae"] = []
    for model in (vae, gmvae):
        evaluated = ut.evaluate_lower_bound(model, (x, None))
        found["iwae"] += [evaluated[name] for name in ("NELBO", "IWAE-10", "IWAE-100", "IWAE-1000")]
        found["iwae"].append(effective_sample_size(model, x, 1000))
        if model is vae:
            found["naive"].append(evaluated["IWAE-1000"])
    found["published"] = [
        theirs["NELBO"][0] - theirs["IWAE-1000"][0]
        for theirs in [PUBLISHED["model=gmvae_z=10_k=500"]]
    ] + [found["iwae"][5] - found["iwae"][8]]
    found["variance"] = [e.var(0).mean().item() for e in gradients(vae, x, 300)]
    found["accuracy"] = [100 * ut.evaluate_classifier(model, (images, labels)) for model in ssvaes]
    found["active"] = [
        value
        for model in (vae, gmvae, ssvaes[1])
        for value in (active_units(model, images), model.z_dim)
    ]
    peak = -0.5 * math.log(2 * math.pi * 0.1)
    found["peak"] = [math.exp(peak), 3072 * peak]
    return found


@pytest.mark.mnist
def test_figures_of_the_page(mnist_dir):
    """To within one of the last digit, or a thousandth: other machines round otherwise."""
    printed, computed = figures_of_page(), computed_figures(mnist_dir)
    assert printed.keys() == computed.keys()
    for name, values in computed.items():
        assert len(values) == len(printed[name]), name
        for value, text in zip(values, printed[name], strict=True):
            text = text.replace(",", "").replace("%", "").strip()
            unit = 10.0 ** -len(text.partition(".")[2])
            assert abs(float(text) - value) <= max(unit, 1e-3 * abs(value)), (name, text, value)


# The page's links


def test_links_of_the_page():
    text = PAGE.read_text(encoding="utf-8")
    links = re.findall(r"\[(`?)([^\]\n]+?)`?\]\(([^)\n]+)\)", text)
    assert len(links) > 50
    headings = {
        re.sub(r"[^\w\- ]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in text.splitlines()
        if line.startswith("#")
    }
    for code, name, target in links:
        if target.startswith("#"):
            assert target[1:] in headings, target
            continue
        path = (PAGE.parent / target.partition("#")[0]).resolve()
        assert path.exists() and path.is_relative_to(ROOT), target
        if code and path.is_file():
            *owner, function = name.split(".")
            source = path.read_text(encoding="utf-8")
            assert re.search(rf"^ *def {function}\(", source, re.M), name
            assert not owner or f"\nclass {owner[0]}(" in source or f"\nclass {owner[0]}:" in source
    sections = re.split(r"^## \d+\. ", text, flags=re.M)[1:]
    assert len(sections) == 10
    for section in sections:
        assert "\nCode: [" in section and "\nTests: [" in section, section[:40]
