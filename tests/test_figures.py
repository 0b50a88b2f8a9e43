"""The pictures and the records of a run, read back."""

import json

import numpy as np
import pytest
import torch
from conftest import Child, same_weights
from PIL import Image
from tensorboardX.proto.event_pb2 import Event

from codebase import data, figures, records, run
from codebase.models.fsvae import FSVAE
from codebase.models.gmvae import GMVAE
from codebase.models.ssvae import SSVAE
from codebase.models.vae import VAE

EDGE = 2  # pixels of make_grid's border


def cells(path, rows, columns, shape):
    """A sheet's pictures: (rows, columns, height, width, 3) in [0, 1]."""
    sheet = np.asarray(Image.open(path), dtype=np.float32) / 255
    height, width = shape
    assert sheet.shape == (EDGE + rows * (height + EDGE), EDGE + columns * (width + EDGE), 3)
    return np.stack(
        [
            np.stack(
                [
                    sheet[EDGE + i * (height + EDGE) :, EDGE + j * (width + EDGE) :][
                        :height, :width
                    ]
                    for j in range(columns)
                ]
            )
            for i in range(rows)
        ]
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
def ssvae_run(data_dir, tmp_path_factory):
    """A short SSVAE run on synthetic digits: its folder and its output."""
    folder = tmp_path_factory.mktemp("ssvae")
    flags = ("--data_dir", data_dir, "--data", "synthetic", "--iter_max", 800, "--iter_save", 300)
    status, stdout, stderr = Child(folder, "run_ssvae.py", *flags, "--batch_size", 30).finish()
    assert status == 0, stderr
    name = "model=ssvae_gw=001_cw=100_run=0000_data=synthetic"
    return folder, name, stdout


def test_a_sheet_has_a_class_in_each_row(ssvae_run):
    """Row i of a barely trained SSVAE is classified as i by its own classifier, above chance."""
    folder, name, stdout = ssvae_run
    path = folder / "logs" / name / "samples.png"
    assert f"Picture: {path}" in stdout
    x = torch.from_numpy(cells(path, 10, 20, (28, 28))[..., 0]).flatten(2)
    model = SSVAE(name=name)
    weights = folder / "checkpoints" / name / "model-00800.pt"
    model.load_state_dict(torch.load(weights, weights_only=True))
    found = model.cls.classify(x).argmax(-1)
    assert (found == torch.arange(10)[:, None]).float().mean() > 0.3
    styles = x.std(0).mean()  # the ten classes in one style differ, and so do the styles in a class
    assert styles > 0.02 and x.std(1).mean() > 0.005


def test_a_sheet_for_every_save(ssvae_run):
    folder, name, _ = ssvae_run
    logs = folder / "logs" / name
    assert sorted(path.name for path in logs.glob("*.png")) == [
        "reconstructions.png",
        "samples-00300.png",
        "samples-00600.png",
        "samples-00800.png",
        "samples.png",
    ]
    last, final = (cells(logs / n, 10, 20, (28, 28)) for n in ("samples-00800.png", "samples.png"))
    assert (last == final).all()  # the same z each time
    assert not (last == cells(logs / "samples-00300.png", 10, 20, (28, 28))).all()


def test_reconstructions_lie_under_the_images(ssvae_run, data_dir):
    folder, name, _ = ssvae_run
    rows = cells(folder / "logs" / name / "reconstructions.png", 10, 20, (28, 28))[..., 0]
    originals, copies = rows[::2].reshape(100, -1), rows[1::2].reshape(100, -1)
    assert set(np.unique(originals)) == {0, 1}  # binarised, as the model sees them
    _, _, (x, y) = data.get_mnist_data("cpu", True, data_dir, "synthetic")
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
        assert [step for step, _ in scalars[tag]] == list(range(50, 801, 50)), tag
    assert scalars["train/loss"][-1][1] < scalars["train/loss"][0][1]
    values = [(event.step, value) for event in events_of(logs) for value in event.summary.value]
    assert [step for step, value in values if value.HasField("image")] == [300, 600, 800]
    texts = [value.tensor.string_val[0] for _, value in values if value.tag.startswith("data")]
    assert texts == [b"synthetic"]

    accuracy = json.loads((logs / "results.json").read_text())["figures"]["accuracy"]
    [(_, recorded)] = scalars_of(logs / "hparams")["final/accuracy"]
    assert abs(recorded - accuracy) < 1e-6
    [embedding] = logs.glob("*/posterior_means")
    means = np.loadtxt(embedding / "tensors.tsv", delimiter="\t")
    labels = (embedding / "metadata.tsv").read_text().split()
    assert means.shape == (100, 64) and labels[::10] == [str(digit) for digit in range(10)]
    assert (embedding / "sprite.png").exists()
    assert "posterior_means" in (logs / "projector_config.pbtxt").read_text()


@pytest.mark.parametrize("script", ["run_vae.py", "run_gmvae.py"])
def test_the_latent_plane(script, data_dir, tmp_path):
    flags = ("--data_dir", data_dir, "--data", "synthetic", "--iter_max", 20, "--z", 2)
    child = Child(tmp_path, script, *flags, "--sheet", "4x6")
    status, stdout, stderr = child.finish()
    assert status == 0 and "not drawn" not in stderr, stderr
    [logs] = (tmp_path / "logs").iterdir()
    assert cells(logs / "samples.png", 4, 6, (28, 28)).max() > 0
    grid = cells(logs / "manifold.png", 20, 20, (28, 28))
    assert not (grid[0, 0] == grid[-1, -1]).all()
    plane = np.asarray(Image.open(logs / "latent.png").convert("RGB")).reshape(-1, 3)
    for digit_colour in ((31, 119, 180), (255, 127, 14)):  # matplotlib's C0 and C1
        assert (np.abs(plane.astype(int) - digit_colour).sum(1) < 90).sum() > 20
    assert "latent.png" in stdout and "manifold.png" in stdout


@torch.no_grad()
def test_the_manifold_spans_the_posterior_means():
    """z_1 to the right and z_2 upwards, from the least to the greatest, by quantiles."""

    class Plane(VAE):
        def infer_latents(self, x, y):
            return (x[:, :2] * 10,)

        def compute_mean_given(self, z, y=None):
            return torch.cat([z / 10, torch.zeros(*z.shape[:-1], 782)], dim=-1)

    x = torch.zeros(5, 784)
    x[:, 0] = torch.tensor([0.9, 0.1, 0.2, 0.3, 0.4])
    x[:, 1] = torch.tensor([1.0, 0.5, 0.0, 0.6, 0.7])
    model = Plane(z_dim=2)
    model.binary = False
    image = figures.manifold(model, x, torch.zeros(5, dtype=torch.int64), size=5)[0]
    z_1, z_2 = (image[EDGE :: 28 + EDGE, EDGE + i :: 28 + EDGE][:5, :5] for i in (0, 1))
    torch.testing.assert_close(z_1, x[:, 0].sort().values.expand(5, 5))
    torch.testing.assert_close(z_2, x[:, 1].sort(descending=True).values[:, None].expand(5, 5))


def test_house_numbers_in_colour(data_dir, tmp_path):
    flags = ("--data_dir", data_dir, "--data", "synthetic", "--iter_max", 60)
    status, stdout, stderr = Child(tmp_path, "run_fsvae.py", *flags).finish()
    assert status == 0, stderr
    [logs] = (tmp_path / "logs").iterdir()
    sheet = cells(logs / "samples.png", 10, 20, (32, 32))
    assert np.abs(sheet[..., 0] - sheet[..., 2]).max() > 0.02  # in colour
    style_apart = np.abs(sheet - sheet.mean(1, keepdims=True)).mean()
    content_apart = np.abs(sheet - sheet.mean(0, keepdims=True)).mean()
    assert style_apart > content_apart  # a column's style is its colour; its digit is a detail
    rows = cells(logs / "reconstructions.png", 10, 20, (32, 32))
    assert np.abs(rows[::2] - rows[1::2]).mean() < np.abs(rows[::2] - rows[1::2][::-1]).mean()


@pytest.mark.parametrize("model", [VAE, GMVAE, SSVAE, FSVAE])
def test_drawing_leaves_the_runs_draws_alone(model):
    model = model()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    with figures.own_draws(torch.device("cpu")):
        first = figures.sample_sheet(model)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    with figures.own_draws(torch.device("cpu")):
        assert torch.equal(figures.sample_sheet(model), first)


def test_a_run_whose_pictures_fail_is_the_same_run(folders, data_dir, monkeypatch, capsys):
    """Bit for bit the weights and figures of the run with pictures; and a warning."""
    import run_vae
    from codebase import cli

    experiments = []
    monkeypatch.setattr(
        cli, "main", lambda flags, experiment: experiments.append((flags, experiment))
    )
    run_vae.main()
    flags, experiment = experiments[0]
    words = ["--data", "synthetic", "--data_dir", str(data_dir), "--iter_max", "60"]
    args = flags.parse_args([*words, "--iter_save", "20", "--overwrite", "1"])
    name = "model=vae_z=10_run=0000_data=synthetic"
    outcomes = []
    for broken in (False, True):
        if broken:
            monkeypatch.setattr(figures, "make_grid", None)
        figure = run.run(args, experiment, {"disable": True})
        path = folders / "checkpoints" / name / "model-00060.pt"
        outcomes.append((figure, torch.load(path, weights_only=True), capsys.readouterr()))
    (figures_1, weights_1, output_1), (figures_2, weights_2, output_2) = outcomes
    assert figures_1 == figures_2 and same_weights(weights_1, weights_2)
    assert "Picture:" in output_1.out and "Picture:" not in output_2.out
    assert "warning: samples.png not drawn" in output_2.err
    assert "warning" not in output_1.err


def test_events_that_cannot_be_written_do_not_end_the_run(folders, monkeypatch, capsys):
    with records.Events("a run") as events:
        events.scalars(1, {"loss": 1.0})
        monkeypatch.setattr(type(events._writer), "add_scalar", _full_disk)
        events.scalars(2, {"loss": 1.0})
        events.scalars(3, {"loss": 1.0})
    error = capsys.readouterr().err
    assert error.count("warning: no more TensorBoard events") == 1 and "No space" in error


def _full_disk(*arguments):
    raise OSError(28, "No space left on device")
