"""Pictures of a model and of its training, as matplotlib Figures, which `png` encodes.

The functions use only the model's methods and attributes.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from codebase import utils as ut
from codebase.data import one_hot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure  # imported where it is used: that takes 0.2 s

    from codebase.models.base import LatentVariableModel

COLUMNS = 20
EDGE = 2  # pixels of a grid's lines
SEED = 0  # seed of the draws for pictures: all sample grids show the same z
WIDTH = 1850  # pixels, which a grid fills as far as whole multiples allow
LARGEST = 8  # pixels for a pixel of an image
DPI = 100
COMPONENTS = 30  # number of a mixture prior's components in a picture
# Ten colours, one per digit, found by a search: any two are 41 apart (CIE 1976) to normal sight,
# and 24 to colour-blind eyes (simulated after Machado et al. 2009). Similar digits have very
# different colours.
PALETTE = (
    *("#64c8c8", "#fa4b7d", "#64324b", "#afaffa", "#c8af64"),
    *("#fa9619", "#6464e1", "#007d00", "#324b19", "#af1996"),
)


@contextlib.contextmanager
def isolated_draws(device: torch.device) -> Iterator[None]:
    """Isolate the draws for a picture, so the run's generators are not affected."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad():
        torch.manual_seed(SEED)
        yield


def png(figure: Figure, heading: str = "") -> bytes:
    """Encode a figure, with a heading above it, as a PNG."""
    if heading:
        titled = figure.axes[0] if len(figure.axes) == 1 else None
        text = f"{heading}\n{titled.get_title()}" if titled else heading
        (titled.set_title if titled else figure.suptitle)(text, fontsize=11, parse_math=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, bbox_inches="tight")
    return buffer.getvalue()


# Grids of images


def sample_sheet(model: LatentVariableModel, rows: int = 10, columns: int = COLUMNS) -> Figure:
    """Draw a sample grid: means of p(x|z) for z from the prior.

    For a model with labels, row i shows class i, and column j shows one style z_j for all classes.
    """
    if model.y_dim:
        z = model.sample_z(columns)
        y = torch.eye(model.y_dim, device=z.device)[:, None]
        x = model.compute_mean_given(z, y)  # (class, style, x_dim)
        labels = [f"class {digit}" for digit in range(model.y_dim)]
        title = "E[x|z, y]: one class per row, one style z per column"
        return _sheet(grid(model, x, columns), title, labels)
    x = model.compute_mean_given(model.sample_z(rows * columns))
    return _sheet(grid(model, x, columns), "E[x|z], z drawn from the prior")


def reconstructions(model: LatentVariableModel, x: Tensor, y: Tensor) -> Figure:
    """Draw rows of images, each above the row of its reconstructions.

    Args:
        model: the model that reconstructs the images
        x: tensor: (n, x_dim): images in [0, 1]; n is a multiple of COLUMNS
        y: tensor: (n, y_dim): one-hot labels
    """
    x, *labels = model.observed_grey(x, y)
    mean = "E[x|z, y]" if model.y_dim else "E[x|z]"
    pairs = torch.stack([x, model.reconstruct(x, *labels)]).unflatten(1, (-1, COLUMNS))
    rows = grid(model, pairs.transpose(0, 1), COLUMNS)  # (row, original or not, column, x_dim)
    title = f"Images, and under each its reconstruction {mean}"
    return _sheet(rows, title, ["x", mean] * len(pairs[0]))


def comparison(models: dict[str, LatentVariableModel], x: Tensor, y: Tensor) -> Figure:
    """Draw a row of images, and below it one row of reconstructions per model.

    Args:
        models: models, keyed by the label of their row
        x: tensor: (n, x_dim): images in [0, 1]
        y: tensor: (n, y_dim): one-hot labels
    """
    first = next(iter(models.values()))
    observed = first.likelihood.observe(x)
    rows = [model.reconstruct(*model.observed(observed, y)) for model in models.values()]
    images = grid(first, torch.stack([observed, *rows]), len(x))
    return _sheet(images, "Images and their reconstructions", ["image", *models])


def traversal(model: LatentVariableModel, x: Tensor, y: Tensor, most: int = 10) -> Figure:
    """Draw E[x|z] as one dimension of z varies from −3 to 3 and the others keep an image's values.

    A dimension counts as used to the extent that its posterior mean varies over images (an active
    unit: Burda et al. 2016, section 5.2); the most used ones come first.

    Args:
        model: a model with or without labels
        x: tensor: (n, x_dim): images in [0, 1]; the middle one is varied
        y: tensor: (n, y_dim): one-hot labels
        most: int: number of dimensions to show
    """
    means, *labels = model.infer_latents(*model.observed_grey(x, y))
    variance, used = means.var(dim=0), most_used(means)[:most]
    steps = torch.linspace(-3, 3, COLUMNS + 1, device=means.device)
    middle = len(means) // 2
    z = means[middle].repeat(len(used), len(steps), 1)  # (dimension, step, z_dim)
    z[torch.arange(len(used)), :, used] = steps
    images = model.compute_mean_given(z, *(own[middle].expand(*z.shape[:2], -1) for own in labels))
    rows = [f"z_{i + 1}, Var {variance[i].item():.2g}" for i in used.tolist()]
    title = "One dimension of z at a time, from −3 to 3; Var: variance of its posterior mean"
    return _sheet(grid(model, images, len(steps)), title, rows)


def most_used(means: Tensor) -> Tensor:
    """Sort dimensions of z by the variance of their posterior means (n, z_dim), largest first."""
    return means.var(dim=0).argsort(descending=True)


def grid(model: LatentVariableModel, x: Tensor, columns: int) -> Tensor:
    """Lay out images (..., x_dim) row by row, between black lines: (height, width, channels)."""
    images = x.detach().cpu().clamp(0, 1).reshape(-1, *model.enc.image_shape)
    images = F.pad(images, (EDGE, 0, EDGE, 0))  # to the left and above
    images = F.pad(images, (0, 0, 0, 0, 0, 0, 0, -len(images) % columns))  # a last row's gaps
    rows = images.unflatten(0, (-1, columns)).permute(0, 3, 1, 4, 2)  # row, y, column, x, channel
    return F.pad(rows.flatten(0, 1).flatten(1, 2), (0, 0, 0, EDGE, 0, EDGE))


def _sheet(images: Tensor, title: str, rows: Sequence[str] = ()) -> Figure:
    """Draw a grid of images with row labels; enlarge each pixel by a whole number."""
    from matplotlib.figure import Figure

    height, width, channels = images.shape
    scale = min(max(WIDTH // width, 1), LARGEST) / DPI
    figure = Figure(figsize=(width * scale, height * scale), dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    pixels = images.expand(-1, -1, 3).numpy() if channels == 1 else images.numpy()
    axes.imshow(pixels, interpolation="nearest", aspect="auto")
    axes.set_title(title, fontsize=11, parse_math=False)
    places = [(i + 0.5) * height / len(rows) for i in range(len(rows))]
    axes.set_yticks(places, rows, fontsize=11, parse_math=False)
    axes.set_xticks([])
    axes.tick_params(length=0)
    return figure


# The plane of a z of two dimensions


@torch.no_grad()
def posterior_means(model: LatentVariableModel, x: Tensor, labels: Tensor) -> Tensor:
    """Return the posterior mean of z for images: (n, z_dim).

    Args:
        model: any model
        x: tensor: (n, x_dim): images in [0, 1]
        labels: tensor: (n,)
    """
    means, *_ = model.infer_latents(*model.observed_grey(x, one_hot(labels)))
    return means


def latent_plane(model: LatentVariableModel, x: Tensor, labels: Tensor) -> Figure:
    """Draw posterior means, coloured by digit, and a mixture prior's components as ellipses.

    Points are drawn in random order, so no digit hides another. The ellipses have a
    radius of one standard deviation. The more images a component is used for, the darker is its
    ellipse; only the most used components are drawn.

    Args:
        model: a model with two-dimensional z
        x: tensor: (n, x_dim): images in [0, 1]
        labels: tensor: (n,)
    """
    means = posterior_means(model, x, labels)
    figure, axes = _plane("posterior means of the test set, by digit")
    low, high = means.amin(0).tolist(), means.amax(0).tolist()  # the range of `manifold`
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    order = torch.randperm(len(means))
    points, digits = means.cpu()[order].numpy(), labels.cpu()[order].numpy()
    colours = [PALETTE[digit] for digit in digits]
    axes.scatter(points[:, 0], points[:, 1], s=4, alpha=0.7, c=colours, linewidths=0)
    for digit in range(10):
        middle = means[labels == digit].median(dim=0).values.tolist()
        box = {"boxstyle": "circle,pad=0.25", "facecolor": "white", "edgecolor": PALETTE[digit]}
        x_1, x_2 = middle
        axes.text(x_1, x_2, str(digit), ha="center", va="center", fontsize=11, bbox=box)
    if model.z_prior[0].ndim == 3:  # a mixture: (1, components, 2)
        _draw_components(axes, model, component_shares(model, means))
    return figure


def _draw_components(axes: Axes, model: LatentVariableModel, shares: Tensor) -> None:
    from matplotlib.collections import EllipseCollection
    from matplotlib.lines import Line2D

    used = shares.argsort(descending=True)[:COMPONENTS]
    prior_m, prior_v = (p.detach()[0, used].cpu().numpy() for p in model.z_prior)
    widths, heights = 2 * np.sqrt(prior_v).T
    darkness = (0.6 * shares[used] / shares[used[0]]).tolist()
    ellipses = EllipseCollection(
        *(widths, heights, 0 * widths),
        units="xy",
        offsets=prior_m,
        offset_transform=axes.transData,
        zorder=2,
        facecolors="none",
        edgecolors=[(0, 0, 0, alpha) for alpha in darkness],
    )
    axes.add_collection(ellipses)
    label = f"{len(used)} of {len(shares)} components of p(z), one standard deviation; "
    label += f"likeliest for {shares[used].sum().item():.0%} of the images"
    axes.legend(handles=[Line2D([], [], color="black", linewidth=1, label=label)])


def component_shares(model: LatentVariableModel, means: Tensor) -> Tensor:
    """Return the share of the images for which each component of a mixture prior is the likeliest.

    Args:
        model: a model with a mixture prior
        means: tensor: (n, z_dim): posterior means of images

    Returns:
        tensor: (components,)
    """
    m, v = model.z_prior  # (1, components, z_dim)
    log_p = (ut.log_normal(part.unsqueeze(1), m, v) for part in means.split(500))  # saves memory
    likeliest = torch.cat([of_part.argmax(dim=1) for of_part in log_p])
    return likeliest.bincount(minlength=m.shape[1]) / len(means)


def manifold(model: LatentVariableModel, x: Tensor, labels: Tensor, size: int = 20) -> Figure:
    """Draw E[x|z] on a grid over the range of the posterior means, z_1 to the right and z_2 up.

    The grid's lines are at quantiles of the means, so they are dense where images are dense. On an
    even grid, a few outlying images would squeeze most digits into the middle.

    Args:
        model: a model with two-dimensional z
        x: tensor: (n, x_dim): images in [0, 1]
        labels: tensor: (n,)
        size: int: number of lines in each direction
    """
    z = manifold_points(posterior_means(model, x, labels), size)
    pixels = grid(model, model.compute_mean_given(z), size)
    figure, axes = _plane(f"E[x|z], lines at {size} quantiles of the posterior means")
    extent = (0, size, 0, size)
    axes.imshow(pixels.expand(-1, -1, 3).numpy(), extent=extent, interpolation="nearest")
    every = max(size // 10, 1)
    places = [i + 0.5 for i in range(0, size, every)]
    for axis, values in ((axes.xaxis, z[0, ::every, 0]), (axes.yaxis, z[:, 0, 1].flip(0)[::every])):
        axis.set_ticks(places, [f"{value:.1f}" for value in values.tolist()])
    return figure


def manifold_points(means: Tensor, size: int) -> Tensor:
    """Return the points of `manifold`: (size, size, 2); z_2 decreases downwards."""
    quantiles = np.quantile(means.cpu().numpy(), np.linspace(0, 1, size), axis=0)
    z_1, z_2 = torch.tensor(quantiles.T.tolist(), device=means.device)
    return torch.stack([z_1.expand(size, size), z_2.flip(0)[:, None].expand(size, size)], dim=-1)


def _plane(title: str) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 10.4), layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlabel="$z_1$", ylabel="$z_2$", title=title)
    return figure, axes


# Curves


def curves(history: dict[str, list[list[float]]]) -> Figure:
    """Plot NELBO, KL and Rec against iterations, for training minibatches and held-out images.

    Args:
        history: rows (iteration, NELBO, KL, Rec) under the keys "train" and "test"
    """
    from matplotlib.figure import Figure

    train, test = (np.array(history[kind]).reshape(-1, 4) for kind in ("train", "test"))
    figure = Figure(figsize=(15, 5), layout="constrained")
    for i, name in enumerate(("NELBO", "KL", "Rec"), start=1):
        axes = figure.add_subplot(1, 3, i)
        marker = "." if len(train) < 20 else ""  # a lone point has no line
        line = axes.plot(train[:, 0], train[:, i], color=PALETTE[6], linewidth=0.8, marker=marker)
        line[0].set_label("training minibatches")
        axes.plot(test[:, 0], test[:, i], "o-", color=PALETTE[5], ms=5, label="held-out images")
        axes.set(xlabel="iteration", ylabel="nats per image", title=name)
        first = max(train[-1, 0] / 10, 100) if len(train) else 0
        settled = train[train[:, 0] > first, i]
        if len(settled) > 1:  # the first iterations would leave the rest no height
            low, high = np.quantile(np.concatenate([settled, test[:, i]]), [0, 0.995])
            room = 0.05 * (high - low) or 1
            axes.set_ylim(low - room, high + room)
        axes.grid(alpha=0.3)
    axes.legend()
    return figure
