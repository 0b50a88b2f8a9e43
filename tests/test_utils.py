"""Densities, divergences and sampling against torch.distributions, in float64 and beyond."""

import math
import subprocess
import sys

import pytest
import torch
from conftest import run_python
from torch import distributions as D
from torch.autograd import gradcheck

from codebase import ROOT
from codebase import utils as ut


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def variances(*shape, seed=1):
    return randn(*shape, seed=seed).exp()


def close(value, reference, rtol=1e-12):
    torch.testing.assert_close(value, reference, rtol=rtol, atol=1e-12)


# Densities and divergences against torch.distributions, in float64


def test_log_normal():
    x, m, v = randn(4, 3, 5), randn(3, 5, seed=2), variances(5)
    reference = D.Independent(D.Normal(m, v.sqrt().expand(3, 5)), 1).log_prob(x)
    close(ut.log_normal(x, m, v), reference)


def test_log_normal_broadcasts_the_prior_of_one_number():
    z = randn(7, 10)
    reference = D.Normal(0.0, 1.0).log_prob(z).sum(-1)
    close(ut.log_normal(z, torch.zeros(1).double(), torch.ones(1).double()), reference)


@pytest.mark.parametrize("batch", [1, 6])
def test_log_normal_mixture(batch):
    z, m, v = randn(6, 5), randn(batch, 8, 5, seed=2), variances(batch, 8, 5)
    components = D.Independent(D.Normal(m, v.sqrt()), 1)
    mixture = D.MixtureSameFamily(D.Categorical(torch.ones(batch, 8).double()), components)
    close(ut.log_normal_mixture(z, m, v), mixture.log_prob(z))


@pytest.mark.parametrize("scale", [1.0, 1e-2, 1e-4])
def test_log_normal_mixture_in_float32_is_as_good_as_its_inputs(scale):
    """The one matrix product loses nothing: relative error 1e-6 at variances down to 1e-4."""
    z = randn(97, 10).float()
    m = (randn(1, 500, 10, seed=2)).float()
    m[0, :97] = z + 0.01 * randn(97, 10, seed=4).float()  # some components near the points
    v = (scale * (0.5 + torch.rand(1, 500, 10))).float()
    reference = ut.log_mean_exp(
        ut.log_normal(z.double().unsqueeze(1), m.double(), v.double()), dim=1
    )
    error = (ut.log_normal_mixture(z, m, v).double() - reference).abs() / reference.abs()
    assert error.max() < 1e-6


def test_log_bernoulli_with_logits():
    logits = 5 * randn(3, 4, 6)
    x = (randn(4, 6, seed=2) > 0).double()
    reference = D.Bernoulli(logits=logits).log_prob(x.expand(3, 4, 6)).sum(-1)
    close(ut.log_bernoulli_with_logits(x, logits), reference)


def test_log_bernoulli_of_grey_levels():
    logits, x = randn(4, 6), torch.rand(4, 6, dtype=torch.float64)
    p = logits.sigmoid()
    close(ut.log_bernoulli_with_logits(x, logits), (x * p.log() + (1 - x) * (1 - p).log()).sum(-1))


def test_kl_normal():
    qm, qv, pm, pv = randn(4, 5), variances(4, 5), randn(5, seed=3), variances(5, seed=4)
    reference = D.kl_divergence(D.Normal(qm, qv.sqrt()), D.Normal(pm, pv.sqrt())).sum(-1)
    close(ut.kl_normal(qm, qv, pm, pv), reference)


def test_kl_cat():
    q, p = D.Categorical(logits=randn(4, 10)), D.Categorical(logits=randn(4, 10, seed=2))
    close(ut.kl_cat(q.probs, q.probs.log(), p.probs.log()), D.kl_divergence(q, p))
    uniform = D.Categorical(torch.ones(4, 10).double())
    close(ut.kl_cat(q.probs, q.probs.log(), -math.log(10)), D.kl_divergence(q, uniform))


def test_kl_cat_where_q_is_zero():
    q = torch.tensor([[0.0, 1.0], [0.5, 0.5]], dtype=torch.float64, requires_grad=True)
    kl = ut.kl_cat(q, q.log(), math.log(0.5))
    close(kl, torch.tensor([math.log(2), 0.0], dtype=torch.float64))
    p = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    close(ut.kl_cat(q[:1], q[:1].log(), p.log()), torch.zeros(1, dtype=torch.float64))


def test_laplace():
    x, m, b = randn(4, 5), randn(5, seed=2), variances(4, 5)
    close(ut.log_laplace(x, m, b), D.Laplace(m, b).log_prob(x).sum(-1))
    pm, pb = randn(5, seed=3), variances(5, seed=4)
    reference = D.kl_divergence(D.Laplace(x, b), D.Laplace(pm, pb)).sum(-1)
    close(ut.kl_laplace(x, b, pm, pb), reference)


# Sampling


def test_sample_gaussian_is_one_standard_draw():
    m, v = randn(6, 4).float(), variances(4).float()
    torch.manual_seed(3)
    z = ut.sample_gaussian(m, v)
    torch.manual_seed(3)
    assert torch.equal(z, m + v.sqrt() * torch.randn(6, 4))
    torch.manual_seed(3)
    row_by_row = ut.sample_gaussian(m[:1].expand(6, 4), v)  # an expanded mean has the same draw
    torch.manual_seed(3)
    assert torch.equal(row_by_row, m[:1] + v.sqrt() * torch.randn(6, 4))


def test_sample_laplace_has_its_distribution_and_gradient():
    torch.manual_seed(0)
    m = torch.full((200_000,), 0.5, dtype=torch.float64, requires_grad=True)
    b = torch.full((200_000,), 2.0, dtype=torch.float64, requires_grad=True)
    z = ut.sample_laplace(m, b)
    uniform = D.Laplace(m.detach(), b.detach()).cdf(z.detach()).sort().values
    ideal = torch.arange(1, 200_001, dtype=torch.float64) / 200_000
    assert (uniform - ideal).abs().max() < 1.95 / math.sqrt(200_000)  # Kolmogorov, one in 1000
    z.sum().backward()
    close(m.grad, torch.ones_like(m))
    close(b.grad, ((z - m) / b).detach())


def test_sample_laplace_is_finite_where_the_uniform_draw_is_zero(monkeypatch):
    monkeypatch.setattr(torch, "rand_like", lambda m, **_: torch.tensor([0.0, 0.5, 1 - 2**-24]))
    m, b = torch.zeros(3, requires_grad=True), torch.ones(3, requires_grad=True)
    z = ut.sample_laplace(m, b)
    z.sum().backward()
    assert z.isfinite().all() and b.grad.isfinite().all()
    assert z[0] < -15 and z[1] == 0 and z[2] > 15


# Shapes and errors


def test_gaussian_parameters():
    h = randn(2, 6, 4)
    m, v = ut.gaussian_parameters(h, dim=1)
    assert torch.equal(m, h[:, :3])
    close(v, (1 + h[:, 3:].exp()).log() + 1e-8)
    m, v = ut.gaussian_parameters(h)
    assert m.shape == v.shape == (2, 6, 2)


@pytest.mark.parametrize("call", [lambda: ut.gaussian_parameters(torch.zeros(2, 7)), "duplicate"])
def test_errors_name_the_value(call):
    if call == "duplicate":
        with pytest.raises(ValueError, match="0"):
            ut.duplicate(torch.zeros(2, 3), 0)
    else:
        with pytest.raises(ValueError, match="7"):
            call()


def test_duplicate():
    x = randn(3, 2, 2)
    copies = ut.duplicate(x, 4)
    assert copies.shape == (12, 2, 2)
    assert all(torch.equal(copies[r * 3 + i], x[i]) for r in range(4) for i in range(3))


def test_log_mean_exp_and_log_sum_exp():
    x = randn(5, 3)
    close(ut.log_mean_exp(x, 1), x.exp().mean(1).log())
    close(ut.log_sum_exp(x), x.exp().sum(0).log())
    close(ut.log_sum_exp(x + 1e4, 0), x.exp().sum(0).log() + 1e4)
    close(ut.log_mean_exp(x - 1e4, 0), x.exp().mean(0).log() - 1e4)
    nothing = torch.full((4, 2), -torch.inf)
    assert (ut.log_mean_exp(nothing, 0) == -torch.inf).all()
    assert (ut.log_sum_exp(nothing) == -torch.inf).all()


# Extreme inputs and gradients


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_inputs(dtype):
    logits = torch.tensor([[1e4, -1e4, 1e4, -1e4]], dtype=dtype, requires_grad=True)
    x = torch.tensor([[1.0, 0.0, 0.0, 1.0]], dtype=dtype)
    value = ut.log_bernoulli_with_logits(x, logits)
    assert value.item() == -2e4
    value.sum().backward()
    assert torch.equal(logits.grad, torch.tensor([[0.0, 0.0, -1.0, 1.0]], dtype=dtype))

    v = torch.full((1, 5), 1e-8, dtype=dtype, requires_grad=True)
    zero = torch.zeros(1, 5, dtype=dtype)
    reference = D.Normal(zero.double(), torch.full((1, 5), 1e-8).double().sqrt())
    for z in (zero, zero + 1e-4):
        expected = reference.log_prob(z.double()).sum(-1)
        for value in (
            ut.log_normal(z, zero, v),
            ut.log_normal_mixture(z, zero.expand(1, 3, 5), v.expand(1, 3, 5)),
        ):
            torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=0)
            value.sum().backward()
            assert v.grad.isfinite().all()

    far = torch.full((1, 5), 45.0, dtype=dtype)  # a log-density of −1e4
    one = torch.ones(1, 2, 5, dtype=dtype)
    expected = D.Normal(0.0, 1.0).log_prob(far.double()).sum(-1)
    value = ut.log_normal_mixture(far, 0 * one, one)
    torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=0)

    kl = ut.kl_normal(zero, v, zero, torch.ones(1, dtype=dtype))
    assert kl.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_functions_follow_their_inputs_dtype(dtype):
    x, m, v = randn(3, 4).to(dtype), randn(3, 4, seed=1).to(dtype), variances(3, 4).to(dtype)
    components = randn(1, 5, 4).to(dtype), variances(1, 5, 4).to(dtype)
    q = randn(3, 4).softmax(-1).to(dtype)
    for value in (
        ut.sample_gaussian(m, v),
        ut.sample_laplace(m, v),
        ut.log_normal(x, m, v),
        ut.log_normal_mixture(x, *components),
        *ut.gaussian_parameters(x),
        ut.log_bernoulli_with_logits((x > 0).to(dtype), m),
        ut.kl_normal(m, v, x, v),
        ut.kl_cat(q, q.log(), math.log(0.25)),
        ut.log_laplace(x, m, v),
        ut.kl_laplace(m, v, x, v),
        ut.log_mean_exp(x, 1),
        ut.log_sum_exp(x),
        ut.duplicate(x, 2),
    ):
        assert value.dtype == dtype and value.isfinite().all()


def test_gradients():
    def leaf(*shape, seed=0, positive=False):
        value = variances(*shape, seed=seed) if positive else randn(*shape, seed=seed)
        return value.requires_grad_()

    x, m, v = leaf(3, 4), leaf(3, 4, seed=1), leaf(3, 4, seed=2, positive=True)
    p = leaf(4, seed=3, positive=True)
    assert gradcheck(ut.log_normal, (x, m, v))
    assert gradcheck(ut.kl_normal, (m, v, x, p))
    assert gradcheck(ut.log_laplace, (x, m, v))
    assert gradcheck(ut.kl_laplace, (m, v, x, p))
    for batch in (1, 3):
        components = leaf(batch, 5, 4), leaf(batch, 5, 4, seed=6, positive=True)
        assert gradcheck(ut.log_normal_mixture, (x, *components))
    assert gradcheck(lambda logits: ut.log_bernoulli_with_logits((x > 0).double(), logits), (m,))
    q = (randn(3, 4).softmax(-1)).requires_grad_()
    assert gradcheck(lambda q: ut.kl_cat(q, q.log(), math.log(0.25)), (q,))
    assert gradcheck(lambda h: ut.gaussian_parameters(h), (x,))
    assert gradcheck(lambda h: ut.log_mean_exp(h, 1), (x,))

    def fixed_draw(sample):
        def draw(m, v):
            torch.manual_seed(0)
            return sample(m, v)

        return draw

    assert gradcheck(fixed_draw(ut.sample_gaussian), (m, v))
    assert gradcheck(fixed_draw(ut.sample_laplace), (m, v))


def test_gradient_of_the_mixture_in_float32():
    z, m, v = randn(7, 3), randn(1, 5, 3, seed=2), variances(1, 5, 3)
    grads = {}
    for dtype in (torch.float32, torch.float64):
        inputs = [t.to(dtype).requires_grad_() for t in (z, m, v)]
        ut.log_normal_mixture(*inputs).sum().backward()
        grads[dtype] = [t.grad.double() for t in inputs]
    for single, double in zip(grads[torch.float32], grads[torch.float64], strict=True):
        torch.testing.assert_close(single, double, rtol=1e-5, atol=1e-6)


# The module


def test_notebook_names_are_reachable():
    for name, home in ut._ELSEWHERE.items():
        assert getattr(ut, name).__module__ == home
        assert name in dir(ut)
    with pytest.raises(AttributeError, match="nothing_such"):
        _ = ut.nothing_such


@pytest.mark.process
def test_importing_is_light():
    code = """
import sys
for module in ("utils", "models.vae", "models.gmvae", "models.ssvae", "models.fsvae"):
    __import__(f"codebase.{module}")
    print([m for m in ("torchvision", "tensorboardX", "matplotlib") if m in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, encoding="utf-8", check=True
    )
    assert done.stdout == 5 * "[]\n" and done.stderr == ""


@pytest.mark.process
def test_any_module_can_be_the_first():
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in sorted((ROOT / "codebase").rglob("*.py"))
        if path.name != "__init__.py"
    ]
    assert len(modules) > 15
    code = """
import os, sys, torch
for module in sys.argv[1:]:
    pid = os.fork()
    if pid == 0:
        try:
            __import__(module)
        except BaseException as error:
            print(module, error)
        sys.stdout.flush()
        os._exit(0)
    os.waitpid(pid, 0)
"""
    done = run_python(ROOT, "-c", code, *modules)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
