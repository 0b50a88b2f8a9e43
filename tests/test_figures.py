"""The pictures of a trained model, and the events of its training, read back."""

import io

import numpy as np
import pytest
import torch
from conftest import events_of, same_weights, succeed, weights
from PIL import Image

from codebase import figures
from codebase.models import FSVAE, GMVAE, SSVAE, VAE
from codebase.models.likelihoods import Gaussian

CPU = torch.device("cpu")


def cells(figure, rows, columns):
    """Return a grid's images: (rows, columns, height, width, channels)."""
    [axes] = figure.axes
    grid = axes.images[0].get_array()
    edge, height = figures.EDGE, len(grid) // rows - figures.EDGE
    steps = [edge + i * (height + edge) for i in range(max(rows, columns))]
    return torch.tensor(
        np.stack(
            [
                np.stack([grid[y : y + height, x : x + height] for x in steps[:columns]])
                for y in steps[:rows]
            ]
        )
    )


def labels_of(figure):
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def test_a_sheet_has_a_class_per_row_and_a_style_per_column():
    model = FSVAE()
    torch.manual_seed(3)
    figure = figures.sample_sheet(model, columns=4)
    torch.manual_seed(3)
    z = model.sample_z(4)
    found = cells(figure, 10, 4)
    assert labels_of(figure) == [f"class {digit}" for digit in range(10)]
    for digit in (0, 7):
        y = torch.eye(10)[digit].expand(4, 10)
        x = model.compute_mean_given(z, y).clamp(0, 1).view(4, 3, 32, 32).permute(0, 2, 3, 1)
        torch.testing.assert_close(found[digit], x)


def test_reconstructions_lie_under_the_images():
    model, x = SSVAE(), torch.bernoulli(torch.full((40, 784), 0.2))
    figure = figures.reconstructions(model, x, torch.eye(10).repeat(4, 1))
    found = cells(figure, 4, 20)[..., 0].flatten(2)
    assert labels_of(figure) == ["x", "E[x|z, y]"] * 2
    assert torch.isin(found[::2], torch.tensor([0.0, 1.0])).all()
    expected = model.reconstruct(found[2]).detach()
    torch.testing.assert_close(found[3], expected)


def test_a_comparison_has_a_row_per_run():
    models = {"one": VAE(), "β = 4": GMVAE()}
    x = torch.bernoulli(torch.full((20, 784), 0.2))
    figure = figures.comparison(models, x, torch.eye(10).repeat(2, 1))
    found = cells(figure, 3, 20)[..., 0].flatten(2)
    assert labels_of(figure) == ["image", "one", "β = 4"]
    for row, model in zip(found[1:], models.values(), strict=True):
        torch.testing.assert_close(row.flatten(1), model.reconstruct(found[0].flatten(1)).detach())


@pytest.mark.parametrize("model", [VAE, FSVAE])
def test_a_picture_is_sharp_and_has_its_heading(model):
    """Each pixel of a grid is a block of equal pixels in the file."""
    figure = figures.sample_sheet(model(), 10, 20)
    small = figures.png(figure, "a heading with $ and _")
    grid = figure.axes[0].images[0].get_array()
    pixels = np.asarray(Image.open(io.BytesIO(small)).convert("RGB"))
    scale = figures.WIDTH // grid.shape[1]
    assert pixels.shape[1] >= scale * grid.shape[1] and pixels.shape[1] < 2100
    assert figure.axes[0].get_title().startswith("a heading with $ and _\n")
    row = pixels[pixels.shape[0] // 2].astype(int)
    changes = np.flatnonzero(np.abs(np.diff(row, axis=0)).sum(1))
    assert (np.diff(changes) % scale == 0).mean() > 0.9


def test_the_palette_is_told_apart():
    """Distances in CIELAB, where 2 can just be seen; a dot needs about ten times that."""
    colours = [[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in figures.PALETTE]
    srgb = np.array(colours)
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.412, 0.358, 0.180], [0.213, 0.715, 0.072], [0.019, 0.119, 0.950]])
    t = np.cbrt(linear @ to_xyz.T / to_xyz.sum(1))
    lab = np.stack([116 * t[:, 1], 500 * (t[:, 0] - t[:, 1]), 200 * (t[:, 1] - t[:, 2])], axis=1)
    apart = np.linalg.norm(lab[:, None] - lab, axis=2) + 1000 * np.eye(10)
    assert apart.min() > 40


# The plane


def test_a_mixtures_most_used_components_are_drawn():
    model = GMVAE(z_dim=2, k=100)
    with torch.no_grad():
        model.z_pre[0, :100] = 50 + torch.arange(100)[:, None].float()  # far from all images
        model.z_pre[0, 7], model.z_pre[0, 11] = torch.tensor([[-3.0, 0], [3.0, 0]])
        model.z_pre[0, 100:] = 0
    means = torch.tensor([[-3.0, 0], [-2.5, 0.3], [3.0, 0.1], [-4.0, 0]])
    shares = figures.component_shares(model, means)
    assert shares[7] == 0.75 and shares[11] == 0.25 and shares.sum() == 1

    model.infer_latents = lambda x: (torch.where(x[:, :1] > 0.5, means[2], means[0]),)
    x, labels = torch.zeros(40, 784), torch.arange(40) % 10
    x[30:] = 1
    axes = figures.latent_plane(model, x, labels).axes[0]
    [ellipses] = [c for c in axes.collections if type(c).__name__ == "EllipseCollection"]
    np.testing.assert_allclose(ellipses.get_offsets()[:2], [[-3, 0], [3, 0]])
    alphas = ellipses.get_edgecolors()[:, 3]
    assert len(alphas) == figures.COMPONENTS and alphas[0] > alphas[1] > alphas[2] == 0
    [text] = axes.get_legend().get_texts()
    assert "30 of 100 components" in text.get_text() and "100%" in text.get_text()


def test_no_digit_hides_another():
    """The points are drawn in an order that does not depend on their digits; all are there."""
    torch.manual_seed(0)
    labels = torch.arange(500) // 50
    axes = figures.latent_plane(VAE(z_dim=2), torch.rand(500, 784), labels).axes[0]
    colours = [tuple(colour) for colour in axes.collections[0].get_facecolors()]
    first = [colour == colours[0] for colour in colours]
    assert sum(first) == 50 and sum(a != b for a, b in zip(first, first[1:], strict=False)) > 40


@torch.no_grad()
def test_the_manifold_spans_the_posterior_means():
    """z_1 to the right and z_2 upwards, from the least to the greatest, by quantiles."""

    class Plane(VAE):
        def infer_latents(self, x):
            return (x[:, :2] * 10,)

        def compute_mean_given(self, z, y=None):
            return torch.cat([z / 10, torch.zeros(*z.shape[:-1], 782)], dim=-1)

    x = torch.zeros(5, 784)
    x[:, 0] = torch.tensor([0.9, 0.1, 0.2, 0.3, 0.4])
    x[:, 1] = torch.tensor([1.0, 0.5, 0.0, 0.6, 0.7])
    model = Plane(z_dim=2, likelihood=Gaussian(1))
    figure = figures.manifold(model, x, torch.zeros(5, dtype=torch.int64), size=5)
    z_1, z_2 = cells(figure, 5, 5)[:, :, 0, :2, 0].unbind(-1)
    torch.testing.assert_close(z_1, x[:, 0].sort().values.expand(5, 5))
    torch.testing.assert_close(z_2, x[:, 1].sort(descending=True).values[:, None].expand(5, 5))
    [axes] = figure.axes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == "1.0 2.0 3.0 4.0 9.0".split()
    assert [tick.get_text() for tick in axes.get_yticklabels()] == "0.0 5.0 6.0 7.0 10.0".split()


@torch.no_grad()
def test_a_traversal_shows_the_most_used_dimensions_first():
    class Used(VAE):
        def infer_latents(self, x):
            return (torch.stack([0 * x[:, 0], x[:, 0], 3 * x[:, 1], x[:, 2] / 9], dim=1),)

        def compute_mean_given(self, z, y=None):
            return torch.cat([(z + 3) / 6, torch.zeros(*z.shape[:-1], 780)], dim=-1)

    torch.manual_seed(0)
    x, model = torch.rand(100, 784), Used(z_dim=4, likelihood=Gaussian(1))
    figure = figures.traversal(model, x, torch.eye(10)[:1], 3)
    assert [label.split(",")[0] for label in labels_of(figure)] == ["z_3", "z_2", "z_4"]
    z_3 = cells(figure, 3, 21)[:, :, 0, 2, 0] * 6 - 3  # the pixel that shows it
    torch.testing.assert_close(z_3[0], torch.linspace(-3, 3, 21))
    torch.testing.assert_close(z_3[1], (3 * x[50, 1]).expand(21))  # elsewhere it stays


# Training


def test_curves():
    rows = [[50, 500.0, 10.0, 490.0], [100, 300.0, 11.0, 289.0]]
    rows += [[50 * i, 150.0 - i, 12.0, 138.0 - i] for i in range(3, 8)]
    history = {"train": rows, "test": [[350, 144.0, 12.0, 132.0]]}
    figure = figures.curves(history)
    assert [axes.get_title() for axes in figure.axes] == ["NELBO", "KL", "Rec"]
    for i, axes in enumerate(figure.axes, start=1):
        for line, kind in zip(axes.lines, history.values(), strict=True):
            assert line.get_xdata().tolist() == [row[0] for row in kind]
            assert line.get_ydata().tolist() == [row[i] for row in kind]
    assert figure.axes[0].get_ylim()[1] < 160  # the first iterations do not set the axis


@pytest.mark.parametrize("model", [VAE, GMVAE, SSVAE, FSVAE])
def test_drawing_leaves_the_runs_draws_alone(model):
    model = model()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    with figures.isolated_draws(CPU):
        first = cells(figures.sample_sheet(model), 10, 20)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    with figures.isolated_draws(CPU):
        assert torch.equal(cells(figures.sample_sheet(model), 10, 20), first)


def test_a_run_records_events_and_pictures(tmp_path, data_dir):
    """In two parts, the second of which continues the curves; a failing picture costs nothing."""
    flags = ("--data", "synthetic", "--data_dir", data_dir, "--iter_save", 60, "--sheet", "2x2")
    succeed(tmp_path / "whole", "run_vae.py", *flags, "--iter_max", 130)
    for more in (("--iter_max", 60), ("--iter_max", 130, "--resume", 1)):
        succeed(tmp_path / "parts", "run_vae.py", *flags, *more)
    name = "model=vae_z=10_run=0000_data=synthetic"
    whole, parts = (
        weights(tmp_path / one / "checkpoints" / name / "training-state.pt")
        for one in ("whole", "parts")
    )
    assert whole["train"] == parts["train"] and whole["test"] == parts["test"]
    assert [row[0] for row in whole["train"]] == [50, 100]
    assert [row[0] for row in whole["test"]] == [60, 120, 130]
    assert same_weights(whole["model"], parts["model"])
    logs = tmp_path / "whole" / "logs" / name
    pictures = {path.name for path in logs.glob("*.png")}
    assert pictures == {
        *("samples-00060.png", "samples-00120.png", "samples-00130.png", "samples.png"),
        *("reconstructions.png", "traversal.png", "curves.png"),
    }
    values = {(e.step, v.tag) for e in events_of(logs) for v in e.summary.value}
    assert {(50, "train/loss"), (100, "gen/elbo"), (60, "test/elbo"), (120, "samples")} <= values
    assert {(130, name) for name in ("samples", "reconstructions", "traversal")} <= values
    finals = {v.tag for e in events_of(logs / "hparams") for v in e.summary.value}
    assert "final/NELBO" in finals
