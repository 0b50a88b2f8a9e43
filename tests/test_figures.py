"""The pictures and the events of a run, read back."""

import json
import struct
import sys

import numpy as np
import pytest
import tiny
import torch
from conftest import finished_run, refused, results, same_weights, succeed, weights
from PIL import Image
from tensorboardX.proto.event_pb2 import Event
from torchvision.datasets import MNIST

import run_vae
from codebase import figures
from codebase.models.fsvae import FSVAE
from codebase.models.gmvae import GMVAE
from codebase.models.likelihoods import Gaussian
from codebase.models.ssvae import SSVAE
from codebase.models.vae import VAE
from codebase.runs import events

EDGE = figures.EDGE


def cells(path, rows, columns, shape, labelled=False):
    """A sheet's pictures: (rows, columns, height, width, 3) in [0, 1]."""
    sheet = np.asarray(Image.open(path).convert("RGB"), dtype=np.float32) / 255
    height, width = (EDGE + n * (s + EDGE) for n, s in zip((rows, columns), shape, strict=True))
    margin = figures.MARGIN if labelled else EDGE
    scale = (sheet.shape[1] - margin) // width
    assert sheet.shape == (figures.HEAD + scale * height, margin + scale * width, 3)
    assert scale == max((figures.SCREEN - margin) // width, 1)
    grid = sheet[figures.HEAD :: scale, margin::scale]
    assert (grid == sheet[figures.HEAD + scale - 1 :: scale, margin + scale - 1 :: scale]).all()
    tops, lefts = (
        EDGE + np.arange(n) * (s + EDGE) for n, s in zip((rows, columns), shape, strict=True)
    )
    return np.stack(
        [np.stack([grid[t : t + shape[0], x : x + shape[1]] for x in lefts]) for t in tops]
    )


def events_of(folder):
    """The events in a folder, read from their records: length, checksum, event, checksum."""
    for path in sorted(folder.glob("events.out.tfevents.*")):
        content = path.read_bytes()
        while content:
            length = int.from_bytes(content[:8], "little")
            event = Event()
            event.ParseFromString(content[12 : 12 + length])
            yield event
            content = content[16 + length :]


def scalars_of(folder):
    found = {}
    for event in events_of(folder):
        for value in event.summary.value:
            if value.HasField("simple_value"):
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


@pytest.fixture(scope="module")
def ssvae_run(whole_data, tmp_path_factory):
    """A short SSVAE run on synthetic digits: its folder and its output."""
    folder = tmp_path_factory.mktemp("ssvae")
    flags = ("--data_dir", whole_data, "--data", "synthetic", "--iter_max", 200)
    flags += ("--iter_save", 100, "--batch_size", 20, "--lr", 0.003)
    stdout, _ = succeed(folder, "run_ssvae.py", *flags, whole=True)
    name = "model=ssvae_gw=001_cw=100_run=0000_data=synthetic"
    return folder, name, stdout


def test_a_sheet_has_a_class_in_each_row(ssvae_run):
    """Row i of a barely trained SSVAE is classified as i by its own classifier, above chance."""
    folder, name, stdout = ssvae_run
    path = folder / "logs" / name / "samples.png"
    assert f"Picture: {path}" in stdout
    with Image.open(path) as picture:
        assert picture.mode == "L"  # a third of the file
    x = torch.from_numpy(cells(path, 10, 20, (28, 28), labelled=True)[..., 0]).flatten(2)
    model = SSVAE(name=name)
    weights = folder / "checkpoints" / name / "model-00200.pt"
    model.load_state_dict(torch.load(weights, weights_only=True))
    found = model.cls.classify(x).argmax(-1)
    assert (found == torch.arange(10)[:, None]).float().mean() > 0.3
    styles = x.std(0).mean()  # the ten classes in one style differ, and so do the styles in a class
    assert styles > 0.02 and x.std(1).mean() > 0.005


def test_a_sheet_for_every_save(ssvae_run):
    folder, name, _ = ssvae_run
    logs = folder / "logs" / name
    assert sorted(path.name for path in logs.glob("*.png")) == [
        "curves.png",
        "reconstructions.png",
        "samples-00100.png",
        "samples-00200.png",
        "samples.png",
        "traversal.png",
    ]
    first, last, final = (
        cells(logs / name, 10, 20, (28, 28), labelled=True)
        for name in ("samples-00100.png", "samples-00200.png", "samples.png")
    )
    assert (last == final).all()  # the same z each time
    assert not (last == first).all()


def test_reconstructions_lie_under_the_images(ssvae_run, whole_data):
    folder, name, _ = ssvae_run
    rows = cells(folder / "logs" / name / "reconstructions.png", 10, 20, (28, 28), True)[..., 0]
    originals, copies = rows[::2].reshape(100, -1), rows[1::2].reshape(100, -1)
    assert set(np.unique(originals)) == {0, 1}  # binarised, as the model sees them
    test = MNIST(whole_data / "synthetic", train=False)
    x, y = test.data.flatten(1), test.targets
    first = torch.cat([x[y == digit][:10] for digit in range(10)]).numpy()
    assert ((originals == 1) <= (first > 0)).all()
    own = np.abs(originals - copies).mean(1)
    others = np.abs(originals - np.roll(copies, 50, axis=0)).mean(1)
    assert (own < others).mean() > 0.8


def test_events(ssvae_run):
    folder, name, _ = ssvae_run
    logs = folder / "logs" / name
    scalars = scalars_of(logs)
    tags = ("train/loss", "gen/elbo", "gen/kl_z", "gen/kl_y", "gen/rec", "class/ce", "class/acc")
    for tag in (*tags, "train/iterations_per_second"):
        assert [step for step, _ in scalars[tag]] == list(range(50, 201, 50)), tag
    assert scalars["train/loss"][-1][1] < scalars["train/loss"][0][1]
    values = [(event.step, value) for event in events_of(logs) for value in event.summary.value]
    images = [(value.tag, step) for step, value in values if value.HasField("image")]
    last = [value.image for _, value in values if value.tag == "samples"][-1]
    assert last.encoded_image_string == (logs / "samples.png").read_bytes()
    assert (last.width, last.height) == Image.open(logs / "samples.png").size
    sheets = [("samples", step) for step in (100, 200, 200)]
    assert sorted(images) == [("reconstructions", 200), *sheets, ("traversal", 200)]
    for tag in ("test/elbo", "test/kl_z", "test/kl_y", "test/rec"):
        assert [step for step, _ in scalars[tag]] == [100, 200], tag
    for (_, elbo), *terms in zip(
        *(scalars[f"test/{tag}"] for tag in ("elbo", "kl_z", "kl_y", "rec")), strict=True
    ):
        assert -elbo == pytest.approx(sum(value for _, value in terms), rel=1e-5)
    assert scalars["test/elbo"][-1][1] > scalars["test/elbo"][0][1]
    found = json.loads((logs / "results.json").read_text(encoding="utf-8"))
    accuracy = found["figures"]["accuracy"]
    assert len(found["accuracy by class"]) == 10
    [(_, recorded)] = scalars_of(logs / "hparams")["final/accuracy"]
    assert abs(recorded - accuracy) < 1e-6


# Machado et al. 2009: how deuteranopes, protanopes and tritanopes see linear RGB.
SIGHT = {
    "normal": np.eye(3),
    "deuteranope": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "protanope": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "tritanope": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}
XYZ = np.array([[0.412, 0.358, 0.180], [0.213, 0.715, 0.072], [0.019, 0.119, 0.950]])


@pytest.mark.parametrize("sight, least", list(zip(SIGHT, (40, 24, 24, 24), strict=True)))
def test_any_two_colours_are_told_apart(sight, least):
    """Distances in CIELAB, where 2 can just be seen; a dot needs about ten times that."""
    colours = np.array([rgb(colour) for colour in figures.PALETTE]) / 255
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(SIGHT[sight]).T, 0, 1) @ XYZ.T
    t = np.cbrt(seen / XYZ.sum(1))
    lab = np.stack([116 * t[:, 1], 500 * (t[:, 0] - t[:, 1]), 200 * (t[:, 1] - t[:, 2])], axis=1)
    apart = np.linalg.norm(lab[:, None] - lab, axis=2) + 1000 * np.eye(10)
    assert apart.min() > least


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
    assert len(ellipses.get_offsets()) == figures.COMPONENTS < 100
    np.testing.assert_allclose(ellipses.get_offsets()[:2], [[-3, 0], [3, 0]])
    assert ellipses.get_edgecolors()[0, 3] > ellipses.get_edgecolors()[1, 3] > 0
    assert ellipses.get_edgecolors()[2, 3] == 0
    [text] = axes.get_legend().get_texts()
    assert text.get_text() == (
        "30 of 100 components of p(z), one standard deviation; likeliest for 100% of the images"
    )


def test_reconstructions_say_what_they_are_given():
    x, y = torch.rand(20, 784), torch.eye(10).repeat(2, 1)
    for model, mean in ((VAE(), "E[x|z]"), (SSVAE(), "E[x|z, y]")):
        with torch.no_grad():
            picture = figures.reconstructions(model, x, y)
        assert list(picture.rows) == ["x", mean] and picture.title.endswith(mean)


def test_a_picture_of_any_size_is_an_event(tmp_path):
    """Pillow rejects pictures of more than 179 million pixels as attacks."""
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4s2I", 13, b"IHDR", 60_000, 70_000)
    with events.Events(tmp_path) as written:
        written.picture(3, "samples", png)
    [image] = [v.image for event in events_of(tmp_path) for v in event.summary.value]
    assert (image.width, image.height, image.encoded_image_string) == (60_000, 70_000, png)


def rgb(colour):
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


@pytest.mark.parametrize("script", ["run_vae.py", "run_gmvae.py"])
def test_the_latent_plane(script, data_dir, tmp_path):
    flags = ("--data_dir", data_dir, "--data", "synthetic", "--iter_max", 20, "--z", 2)
    stdout, stderr = succeed(tmp_path, script, *flags, "--sheet", "4x6")
    assert "not written" not in stderr, stderr
    [logs] = (tmp_path / "logs").glob("model=*")
    assert cells(logs / "samples.png", 4, 6, (28, 28)).max() > 0
    plane = np.asarray(Image.open(logs / "latent.png").convert("RGB")).reshape(-1, 3)
    for colour in figures.PALETTE:
        assert (np.abs(plane.astype(int) - rgb(colour)).sum(1) < 90).sum() > 20
    assert "latent.png" in stdout and "manifold.png" in stdout and "traversal" not in stdout
    tags = {value.tag for event in events_of(logs) for value in event.summary.value}
    assert {"latent", "manifold", "reconstructions", "samples"} <= tags


def test_no_digit_hides_another():
    """The points are drawn in an order that does not depend on their digits; all are there."""
    torch.manual_seed(0)
    model, x = VAE(z_dim=2), torch.rand(500, 784)
    labels = torch.arange(500) // 50
    figure = figures.latent_plane(model, x, labels, "a heading")
    [axes] = figure.axes
    points = axes.collections[0]
    assert len(points.get_offsets()) == 500 and axes.get_title().startswith("a heading\n")
    blue = [
        tuple(colour[:3]) == tuple(points.get_facecolors()[0][:3])
        for colour in points.get_facecolors()
    ]
    assert sum(blue) == 50 and sum(a != b for a, b in zip(blue, blue[1:], strict=False)) > 40
    means = figures.posterior_means(model, x, labels)
    low, high = means.amin(0).tolist(), means.amax(0).tolist()
    assert axes.get_xlim()[1] - axes.get_xlim()[0] == pytest.approx(high[0] - low[0], rel=0.5)


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
    model, labels = Plane(z_dim=2, likelihood=Gaussian(1)), torch.zeros(5, dtype=torch.int64)
    z, image = figures.manifold_grid(model, figures.posterior_means(model, x, labels), 5)
    z_1, z_2 = (image[0, EDGE :: 28 + EDGE, EDGE + i :: 28 + EDGE][:5, :5] for i in (0, 1))
    torch.testing.assert_close(z_1, x[:, 0].sort().values.expand(5, 5))
    torch.testing.assert_close(z_2, x[:, 1].sort(descending=True).values[:, None].expand(5, 5))
    torch.testing.assert_close(z[..., 0], 10 * z_1)
    [axes] = figures.manifold(model, x, labels, size=5).axes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == [
        "1.0",
        "2.0",
        "3.0",
        "4.0",
        "9.0",
    ]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == [
        "0.0",
        "5.0",
        "6.0",
        "7.0",
        "10.0",
    ]


@torch.no_grad()
def test_a_traversal_shows_the_most_used_dimensions_first():
    class Used(VAE):
        def infer_latents(self, x):
            return (torch.stack([0 * x[:, 0], x[:, 0], 3 * x[:, 1], x[:, 2] / 9], dim=1),)

        def compute_mean_given(self, z, y=None):
            return torch.cat([(z + 3) / 6, torch.zeros(*z.shape[:-1], 780)], dim=-1)

    torch.manual_seed(0)
    x = torch.rand(100, 784)
    picture = figures.traversal(Used(z_dim=4, likelihood=Gaussian(1)), x, torch.eye(10)[:1], 3)
    assert [row.split(",")[0] for row in picture.rows] == ["z_3", "z_2", "z_4"]
    steps = picture.grid[0, EDGE, EDGE + 2 :: 28 + EDGE][:21] * 6 - 3  # the first row's own pixel
    torch.testing.assert_close(steps, torch.linspace(-3, 3, 21))
    other = picture.grid[0, EDGE + 28 + EDGE, EDGE + 2 :: 28 + EDGE][:21] * 6 - 3
    torch.testing.assert_close(other, (3 * x[50, 1]).expand(21))  # elsewhere it stays


def test_curves():
    history = {
        "train": [[50, 200.0, 10.0, 190.0], [100, 150.0, 12.0, 138.0], [150, 140.0, 13.0, 127.0]],
        "test": [[100, 151.0, 12.0, 139.0], [150, 141.0, 13.0, 128.0]],
    }
    figure = figures.curves(history, "a run")
    assert [axes.get_title() for axes in figure.axes] == ["NELBO", "KL", "Rec"]
    for i, axes in enumerate(figure.axes, start=1):
        for line, rows in zip(axes.lines, history.values(), strict=True):
            assert line.get_xdata().tolist() == [row[0] for row in rows]
            assert line.get_ydata().tolist() == [row[i] for row in rows]


def test_the_first_iterations_do_not_set_the_axis():
    rows = [[50, 500.0, 10.0, 490.0], [100, 300.0, 11.0, 289.0]]
    rows += [[50 * i, 150.0 - i, 12.0, 138.0 - i] for i in range(3, 8)]
    figure = figures.curves({"train": rows, "test": []})
    assert figure.axes[0].get_ylim()[1] < 160
    figures.curves({"train": rows[:1], "test": []})
    assert figures.curves({"train": rows[:2], "test": []}).axes[0].get_ylim()[1] > 400


def test_curves_of_a_resumed_run_are_those_of_the_whole(tmp_path, data_dir):
    """The history lies in the training state."""
    flags = ("--data", "synthetic", "--data_dir", data_dir, "--iter_save", 50, "--sheet", "2x2")
    flags += ("--batch_size", 10)
    succeed(tmp_path / "whole", "run_vae.py", *flags, "--iter_max", 100)
    for iterations in (70, 100):
        more = ("--resume", 1, "--iter_max", iterations)
        succeed(tmp_path / "parts", "run_vae.py", *flags, *more)
    name = "model=vae_z=10_run=0000_data=synthetic"
    whole, parts = (
        weights(tmp_path / folder / "checkpoints" / name / "training-state.pt")
        for folder in ("whole", "parts")
    )
    assert whole["train"] == parts["train"] and len(whole["train"]) == 2
    assert [row[0] for row in whole["test"]] == [50, 100]
    assert all(row in parts["test"] for row in whole["test"])


def test_house_numbers_in_colour(whole_data, tmp_path):
    flags = ("--data_dir", whole_data, "--data", "synthetic", "--iter_max", 60)
    succeed(tmp_path, "run_fsvae.py", *flags, whole=True)
    [logs] = (tmp_path / "logs").glob("model=*")
    with Image.open(logs / "samples.png") as picture:
        assert picture.mode == "RGB"
    sheet = cells(logs / "samples.png", 10, 20, (32, 32), labelled=True)
    assert np.abs(sheet[..., 0] - sheet[..., 2]).max() > 0.02  # in colour
    style_apart = np.abs(sheet - sheet.mean(1, keepdims=True)).mean()
    content_apart = np.abs(sheet - sheet.mean(0, keepdims=True)).mean()
    assert style_apart > content_apart  # a column's style is its colour; its digit is a detail
    rows = cells(logs / "reconstructions.png", 10, 20, (32, 32), labelled=True)
    assert np.abs(rows[::2] - rows[1::2]).mean() < np.abs(rows[::2] - rows[1::2][::-1]).mean()


def test_a_comparison_of_runs(whole_data, folders, tmp_path):
    finished_run("run_vae.py", 5)
    finished_run("run_vae.py", 5, beta=4.0, seed=1)
    name = "model=vae_z=10_run=0000_data=synthetic"
    command = ("codebase", "compare", name, f"{name}_beta=4", "--data_dir", whole_data)
    out = tmp_path / "beta.png"
    succeed(tmp_path, *command, "--labels", "β = 1", "β = 4", "--out", out)
    rows = cells(out, 3, 20, (28, 28), labelled=True)
    assert not (rows[1] == rows[2]).all() and set(np.unique(rows[0])) == {0, 1}
    assert "--labels" in refused(tmp_path, *command, "--labels", "β = 1")
    _, stderr = succeed(tmp_path, *command, "--labels", "$x^{$", "日本", "--out", out)
    assert stderr == ""  # labels are not formulas, nor does a letter without a glyph warn
    assert "does not exist" in refused(tmp_path, *command[:2], "nothing")
    assert "pass a file" in refused(tmp_path, *command, "--out", tmp_path)
    finished_run("run_fsvae.py", 5)  # synthetic, too, but of another kind
    other = ("codebase", "compare", name, "model=fsvae_run=0000_data=synthetic")
    assert "not trained on the same kind of images" in refused(tmp_path, *other)


def test_labels_are_whole():
    """Long labels, such as names of runs, are not cut; short ones do not change the layout."""
    grid = torch.zeros(3, 60, 60)
    short = figures.as_pixels(figures.Picture(grid, "", ["z_10, Var 0.99", "x"]))
    assert (short == 0).any(2).any(0).nonzero()[-1] == short.shape[1] - 1
    name = "model=gmvae_z=10_k=500_run=0000_data=synthetic"
    pixels = figures.as_pixels(figures.Picture(grid, "", [name, "x"]))
    assert pixels.shape[1] > 400 and (pixels[:, :4] == 255).all()
    huge = figures.as_pixels(figures.Picture(grid, "", ["x" * 5000, "x"]))
    assert huge.shape[1] <= figures.SCREEN


@pytest.mark.parametrize("model", [VAE, GMVAE, SSVAE, FSVAE])
def test_drawing_leaves_the_runs_draws_alone(model):
    model = model()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    with figures.isolated_draws(torch.device("cpu")):
        first = figures.sample_sheet(model).grid
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    with figures.isolated_draws(torch.device("cpu")):
        assert torch.equal(figures.sample_sheet(model).grid, first)


def test_a_run_whose_pictures_fail_is_the_same_run(folders, whole_data, monkeypatch, capsys):
    """Bit for bit the weights and metrics of the run with pictures; and a warning."""
    flags = ("--data", "synthetic", "--data_dir", str(whole_data), "--iter_max", "60")
    flags += ("--iter_save", "20", "--sheet", "2x2", "--overwrite", "1")
    name = "model=vae_z=10_run=0000_data=synthetic"
    monkeypatch.setattr(sys, "argv", ["run_vae.py", *flags])
    outcomes = []
    for broken in (False, True):
        if broken:
            monkeypatch.setattr(figures, "png", None)
        run_vae.main(tiny.tiny(run_vae.experiment), "")
        path = folders / "checkpoints" / name / "model-00060.pt"
        outcomes.append((results(folders, name)["figures"], weights(path), capsys.readouterr()))
    (figures_1, weights_1, output_1), (figures_2, weights_2, output_2) = outcomes
    assert figures_1 == figures_2 and same_weights(weights_1, weights_2)
    assert "Picture:" in output_1.out and "Picture:" not in output_2.out
    assert "warning: samples.png not written" in output_2.err
    assert "warning" not in output_1.err


@pytest.mark.parametrize("method", ["write_event", "flush", "close"])
def test_events_that_cannot_be_written_do_not_end_the_run(method, folders, monkeypatch, capsys):
    with events.Events(folders / "logs" / "a run") as written:
        written.scalars(1, {"loss": 1.0})
        monkeypatch.setattr(type(written._writer), method, _full_disk)
        written.scalars(2, {"loss": 1.0})
        written.scalars(3, {"loss": 1.0})
    error = capsys.readouterr().err
    assert error.count("warning: no more TensorBoard events") == 1 and "No space" in error


def _full_disk(*arguments):
    raise OSError(28, "No space left on device")
