"""The pictures of a trained model, and the events of its training, read back."""

import numpy as np
import torch
from conftest import NAME, SHORT, same_weights, succeed, weights
from tensorboardX.proto.event_pb2 import Event

from codebase import figures
from codebase.models import FSVAE, GMVAE, SSVAE, VAE
from codebase.models.likelihoods import Gaussian


def cells(figure, rows, columns):
    """Return a grid's images: (rows, columns, height, width, channels)."""
    [axes] = figure.axes
    grid = axes.images[0].get_array()
    edge, height = figures.EDGE, len(grid) // rows - figures.EDGE
    steps = [edge + i * (height + edge) for i in range(max(rows, columns))]
    cells = [[grid[y : y + height, x : x + height] for x in steps[:columns]] for y in steps[:rows]]
    return torch.tensor(np.array(cells))


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


# The plane


def test_a_mixtures_most_used_components_are_drawn():
    model = GMVAE(z_dim=2, k=100)
    with torch.no_grad():
        model.z_pre[0, :100] = 50 + torch.arange(100)[:, None].float()  # far from all images
        model.z_pre[0, 7], model.z_pre[0, 11] = torch.tensor([[-3.0, 0], [3.0, 0]])
        model.z_pre[0, 100:] = 0
    means = torch.tensor([[-3.0, 0], [-2.5, 0.3], [3.0, 0.1], [-4.0, 0]]).repeat(10, 1)
    shares = figures.component_shares(model, means)
    assert shares[7] == 0.75 and shares[11] == 0.25 and shares.sum() == 1

    model.infer_latents = lambda x: (means,)
    axes = figures.latent_plane(model, torch.zeros(40, 784), torch.arange(40) % 10).axes[0]
    [ellipses] = [c for c in axes.collections if type(c).__name__ == "EllipseCollection"]
    np.testing.assert_allclose(ellipses.get_offsets()[:2], [[-3, 0], [3, 0]])
    alphas = ellipses.get_edgecolors()[:, 3]
    assert len(alphas) == figures.COMPONENTS and alphas[0] > alphas[1] > alphas[2] == 0
    [text] = axes.get_legend().get_texts()
    assert "30 of 100 components" in text.get_text() and "100%" in text.get_text()


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


def test_drawing_leaves_the_runs_draws_alone():
    """And draws the same z whenever it is."""
    sheets, model = [], GMVAE()
    for seed in (0, 1):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        with figures.isolated_draws(torch.device("cpu")):
            sheets.append(cells(figures.sample_sheet(model), 10, 20))
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(*sheets)


def events_of(folder):
    """Yield the events in a folder, from their records: length, checksum, event, checksum."""
    for path in sorted(folder.glob("events.out.tfevents.*")):
        content = path.read_bytes()
        while content:
            length = int.from_bytes(content[:8], "little")
            event = Event()
            event.ParseFromString(content[12 : 12 + length])
            yield event
            content = content[16 + length :]


def test_a_run_records_events_and_pictures(tmp_path):
    """In two parts, the second of which continues the curves."""
    flags = ("run_vae.py", *SHORT, "--iter_save", 60)
    succeed(tmp_path / "whole", *flags, "--iter_max", 130)
    for more in (("--iter_max", 60), ("--iter_max", 130, "--resume", 1)):
        succeed(tmp_path / "parts", *flags, *more)
    whole, parts = (
        weights(tmp_path / one / "checkpoints" / NAME.format(0) / "training-state.pt")
        for one in ("whole", "parts")
    )
    assert whole["train"] == parts["train"] and whole["test"] == parts["test"]
    assert [row[0] for row in whole["train"]] == [50, 100]
    assert [row[0] for row in whole["test"]] == [60, 120, 130]
    assert same_weights(whole["model"], parts["model"])
    logs = tmp_path / "whole" / "logs" / NAME.format(0)
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
