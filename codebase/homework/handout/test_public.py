"""Public checks: python -m pytest says for each function whether it is written, and right.

A function that passes here need not be right everywhere: grading tries other inputs, and gradients.
"""

import json
from pathlib import Path

import pytest
import torch


def sample_gaussian(utils, models):
    m, v = torch.linspace(-1, 1, 6).view(2, 3), torch.linspace(0.5, 3, 6).view(2, 3)
    torch.manual_seed(0)
    return utils.sample_gaussian(m, v).flatten().tolist()


def log_normal(utils, models):
    x, m = torch.linspace(-2, 2, 6).view(2, 3), torch.linspace(1, -1, 6).view(2, 3)
    return utils.log_normal(x, m, torch.linspace(0.5, 3, 6).view(2, 3)).tolist()


def log_normal_mixture(utils, models):
    z, m = torch.linspace(-2, 2, 6).view(2, 3), torch.linspace(1, -1, 12).view(1, 4, 3)
    return utils.log_normal_mixture(z, m, torch.linspace(0.5, 3, 12).view(1, 4, 3)).tolist()


def bound(kind, method, *more, **options):
    """The terms of a bound, for a model and 97 images drawn with seed 0."""

    def recipe(utils, models):
        torch.manual_seed(0)
        if kind == "FSVAE":
            images = (torch.rand(20, 3072), torch.eye(10).repeat(2, 1))
        else:
            images = (torch.randint(0, 2, (97, 784)).float(),)
        model = models[kind](**options)
        torch.manual_seed(0)
        terms = getattr(model, method)(*images, *more)
        assert all(term.shape == () for term in terms), "each term is a scalar: average the batch"
        return [term.item() for term in terms]

    return recipe


RECIPES = {
    "sample_gaussian": sample_gaussian,
    "VAE.negative_elbo_bound": bound("VAE", "negative_elbo_bound", z_dim=10),
    "log_normal": log_normal,
    "log_normal_mixture": log_normal_mixture,
    "GMVAE.negative_elbo_bound": bound("GMVAE", "negative_elbo_bound", z_dim=10, k=50),
    "VAE.negative_iwae_bound": bound("VAE", "negative_iwae_bound", 10, z_dim=10),
    "GMVAE.negative_iwae_bound": bound("GMVAE", "negative_iwae_bound", 10, z_dim=10, k=50),
    "SSVAE.negative_elbo_bound": bound("SSVAE", "negative_elbo_bound"),
    "FSVAE.negative_elbo_bound": bound("FSVAE", "negative_elbo_bound"),
}


@pytest.mark.parametrize("function", RECIPES)
def test_public_figures(function):
    from codebase import utils
    from codebase.models import FSVAE, GMVAE, SSVAE, VAE

    models = {"VAE": VAE, "GMVAE": GMVAE, "SSVAE": SSVAE, "FSVAE": FSVAE}
    expected = json.loads(Path(__file__).with_name("public.json").read_text(encoding="utf-8"))[
        function
    ]
    try:
        found = RECIPES[function](utils, models)
    except NotImplementedError as error:
        blank = str(error.__traceback__ and _last(error.__traceback__).tb_frame.f_code.co_name)
        pytest.skip(f"{function}: {blank} is not written yet")
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)


def _last(trace):
    while trace.tb_next is not None:
        trace = trace.tb_next
    return trace
