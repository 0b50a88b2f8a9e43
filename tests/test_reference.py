"""Other people's weights give the figures that they give elsewhere, on the real MNIST."""

import re

import pytest
import torch
from conftest import contents

from codebase import ROOT, checkpoints, data
from codebase import utils as ut
from codebase.models.gmvae import GMVAE
from codebase.models.ssvae import SSVAE
from codebase.models.vae import VAE

SHARED = ROOT.parent / "shared" / "checkpoints"


@pytest.fixture
def public_checkpoints(monkeypatch):
    if not SHARED.exists():
        pytest.skip("the public checkpoints are not in ../shared")
    monkeypatch.setattr(checkpoints, "CHECKPOINTS", SHARED)


@pytest.mark.mnist
@pytest.mark.parametrize(
    "model, figures",
    [
        (
            lambda: VAE(z_dim=10, name="model=vae_z=10_run=0000"),
            {"NELBO": 101.2, "KL": 19.26, "Rec": 81.9, "10": 98.5, "100": 97.5, "1000": 97.1},
        ),
        (
            lambda: GMVAE(z_dim=10, name="model=gmvae_z=10_k=500_run=0000"),
            {"NELBO": 98.95, "KL": 17.5, "Rec": 81.4, "10": 96.5, "100": 95.5, "1000": 95.0},
        ),
    ],
    ids=["vae", "gmvae"],
)
def test_bounds_of_public_weights(model, figures, public_checkpoints, mnist_dir, capsys):
    """To within 0.3: twice the Monte Carlo error of about 0.1, and the figures' last digit."""
    _, subset, _ = data.get_mnist_data("cpu", data_dir=mnist_dir)
    model = model()
    ut.load_model_by_name(model, 20_000)
    torch.manual_seed(0)
    found = ut.evaluate_lower_bound(model, subset)
    printed = capsys.readouterr().out
    assert re.match(r"NELBO: [\d.]+\. KL: [\d.]+\. Rec: [\d.]+\nNegative IWAE-1: ", printed)
    for name, value in figures.items():
        assert abs(found.get(name, found.get(f"IWAE-{name}")) - value) < 0.3, name
    assert abs(found["IWAE-1"] - found["NELBO"]) < 0.3


@pytest.mark.mnist
@pytest.mark.parametrize("gw, accuracy", [(0, 0.7442), (1, 0.9308)])
def test_accuracy_of_public_weights(gw, accuracy, public_checkpoints, mnist_dir, capsys):
    _, _, test = data.get_mnist_data("cpu", False, data_dir=mnist_dir)
    model = SSVAE(gen_weight=gw, name=f"model=ssvae_gw={gw:03d}_cw=100_run=0000")
    before = contents(SHARED)
    ut.load_model_by_name(model, 30_000)
    assert ut.evaluate_classifier(model, test) == accuracy
    assert capsys.readouterr().out == f"Test set classification accuracy: {accuracy}\n"
    assert contents(SHARED) == before
