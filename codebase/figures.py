"""Pictures of what a model learned, and of how.

Most functions return a `Picture` or a matplotlib Figure, which `png` writes. They use only the
model's methods and attributes.
"""

import contextlib
import functools
import io
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from codebase import utils as ut
from codebase.data import one_hot
from codebase.machine import generators

IMAGE_SHAPES = {784: (1, 28, 28), 3072: (3, 32, 32)}
COLUMNS = 20
EDGE = 2  # pixels of a grid's lines
SEED = 0  # seed of the draws for pictures: all sample grids show the same z
SCREEN = 1920  # pixels across, which a picture fills as far as whole multiples allow
MARGIN, HEAD = 150, 56  # pixels to the left of a grid for its rows' labels, and above for a title
DPI = 100
COMPONENTS = 30  # number of a mixture prior's components in a picture
# Ten colours, one per digit, found by a search: any two are 41 apart (CIE 1976) to normal sight,
# and 24 to colour-blind eyes (simulated after Machado et al. 2009). Similar digits have very
# different colours.
PALETTE = (
    *("#64c8c8", "#fa4b7d", "#64324b", "#afaffa", "#c8af64"),
    *("#fa9619", "#6464e1", "#007d00", "#324b19", "#af1996"),
)


class Picture(NamedTuple):
    """A grid of images, and what to write beside it.

    grid: tensor: (channels, height, width) in [0, 1]; one channel is grey
    title: str
    rows: labels of the grid's rows; empty for none
    """

    grid: Tensor
    title: str
    rows: Sequence[str] = ()


@contextlib.contextmanager
def isolated_draws(device: torch.device) -> Iterator[None]:
    """Draw random numbers for a picture: the run's generators go on as if nothing was drawn."""
    with generators.isolated(device, SEED), torch.no_grad():
        yield


# Grids of images


def sample_sheet(model: torch.nn.Module, rows: int = 10, columns: int = COLUMNS) -> Picture:
    """Draw a sample grid: means of p(x|z) for z from the prior.

    A model with labels has class i in row i, and in column j one style z_j for all classes.
    """
    if model.y_dim:
        z = model.sample_z(columns)
        y = torch.eye(model.y_dim, device=z.device)[:, None]
        x = model.compute_mean_given(z, y)  # (class, style, x_dim)
        labels = [f"class {digit}" for digit in range(model.y_dim)]
        return Picture(
            _grid(x, columns), "E[x|z, y]: one class per row, one style z per column", labels
        )
    x = model.compute_mean_given(model.sample_z(rows * columns))
    return Picture(_grid(x, columns), "E[x|z], z drawn from the prior")


def reconstructions(model: torch.nn.Module, x: Tensor, y: Tensor) -> Picture:
    """Rows of images, under each the row of their reconstructions.

    Args:
        model: which reconstructs them
        x: tensor: (n, x_dim): images in [0, 1]; n is a multiple of the columns
        y: tensor: (n, y_dim): one-hot labels
    """
    x, *labels = model.observed_grey(x, y)
    mean = "E[x|z, y]" if model.y_dim else "E[x|z]"
    pairs = torch.stack([x, model.reconstruct(x, *labels)]).unflatten(1, (-1, COLUMNS))
    grid = _grid(pairs.transpose(0, 1), COLUMNS)  # (row, original or not, column, x_dim)
    return Picture(
        grid, f"Images, and under each its reconstruction {mean}", ["x", mean] * len(pairs[0])
    )


def comparison(models: dict[str, torch.nn.Module], x: Tensor, y: Tensor) -> Picture:
    """A row of images, and under it a row of their reconstructions by each model.

    Args:
        models: by the labels of their rows
        x: tensor: (n, x_dim): images in [0, 1]
        y: tensor: (n, y_dim): one-hot labels
    """
    observed = next(iter(models.values())).likelihood.observe(x)
    rows = [model.reconstruct(*model.observed(observed, y)) for model in models.values()]
    grid = _grid(torch.stack([observed, *rows]), len(x))
    return Picture(grid, "Images and their reconstructions", ["image", *models])


def traversal(model: torch.nn.Module, x: Tensor, y: Tensor, most: int = 10) -> Picture:
    """E[x|z] as one dimension of z goes from −3 to 3 and the others keep an image's values.

    A dimension counts as used to the extent that its posterior mean varies over images (an active
    unit: Burda et al. 2016, section 5.2); the most used ones come first.

    Args:
        model: a model with or without labels
        x: tensor: (n, x_dim): images in [0, 1]; the middle one is varied
        y: tensor: (n, y_dim): one-hot labels
        most: int: dimensions to show
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
    return Picture(_grid(images, len(steps)), title, rows)


def most_used(means: Tensor) -> Tensor:
    """Dimensions of z by the variance of their posterior means (n, z_dim), largest first."""
    return means.var(dim=0).argsort(descending=True)


def as_pixels(picture: Picture, heading: str = "") -> Tensor:
    """A picture with its title and labels: (height, width, channels), uint8.

    matplotlib sets only the text: redrawing the grid's pixels would take it half a second.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure  # imported here: it takes 0.2 s

    grid, rows = picture.grid, picture.rows
    margin = max(MARGIN, *map(_label_width, rows)) if rows else EDGE
    scale = max((SCREEN - margin) // grid.shape[2], 1)
    images = grid.mul(255).round().byte().permute(1, 2, 0)
    images = images.repeat_interleave(scale, 0).repeat_interleave(scale, 1)
    height, width = images.shape[0] + HEAD, images.shape[1] + margin
    # A quarter of a pixel more, because matplotlib up to 3.11.0 truncates 1919.9999 to 1919.
    figure = Figure(figsize=((width + 0.25) / DPI, (height + 0.25) / DPI), dpi=DPI)
    text = f"{heading}\n{picture.title}".strip()
    write = functools.partial(figure.text, va="center", fontsize=11, parse_math=False)
    write((margin + 4) / width, 1 - HEAD / 2 / height, text)
    row_height = (grid.shape[1] - EDGE) / max(len(rows), 1) * scale
    for i, label in enumerate(rows):
        middle = 1 - (HEAD + EDGE * scale + (i + 0.5) * row_height) / height
        write((margin - 8) / width, middle, label, ha="right")
    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a box is drawn for a character that the font lacks
        canvas.draw()
    pixels = torch.from_numpy(np.array(canvas.buffer_rgba()))[:, :, : len(grid)]
    pixels[HEAD:, margin:] = images
    return pixels


def _label_width(label: str) -> int:
    """Pixels that a row's label takes, at most half of a picture's."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(dpi=DPI)
    text = figure.text(0, 0, label, fontsize=11, parse_math=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        extent = text.get_window_extent(FigureCanvasAgg(figure).get_renderer())
    return min(math.ceil(extent.width) + 16, SCREEN // 2)


# The plane of a z of two dimensions


@torch.no_grad()
def posterior_means(model: torch.nn.Module, x: Tensor, labels: Tensor) -> Tensor:
    """The posterior mean of z for images: (n, z_dim).

    Args:
        model: any
        x: tensor: (n, x_dim): images in [0, 1]
        labels: tensor: (n,)
    """
    means, *_ = model.infer_latents(*model.observed_grey(x, one_hot(labels)))
    return means


def latent_plane(model: torch.nn.Module, x: Tensor, labels: Tensor, heading: str = ""):
    """A scatter of posterior means by digit, and a mixture prior's components as ellipses.

    Points are drawn in random order, so that no digit hides another. The ellipses have a
    radius of one standard deviation, and are darker the more images their component is used for;
    only the most used components are drawn.

    Args:
        model: a model with two-dimensional z
        x: tensor: (n, x_dim): images in [0, 1]
        labels: tensor: (n,)
        heading: what to write above

    Returns:
        matplotlib's Figure
    """
    from matplotlib.collections import EllipseCollection
    from matplotlib.lines import Line2D

    means = posterior_means(model, x, labels)
    figure, axes = _plane(means, heading, "posterior means of the test set, by digit")
    order = torch.randperm(len(means))
    points, digits = means.cpu()[order].numpy(), labels.cpu()[order].numpy()
    axes.scatter(
        points[:, 0], points[:, 1], s=4, alpha=0.7, c=[PALETTE[d] for d in digits], linewidths=0
    )
    for digit in range(10):
        middle = means[labels == digit].median(dim=0).values.tolist()
        box = {"boxstyle": "circle,pad=0.25", "facecolor": "white", "edgecolor": PALETTE[digit]}
        axes.text(*middle, str(digit), ha="center", va="center", fontsize=11, bbox=box)
    if model.z_prior[0].ndim == 3:  # a mixture: (1, components, 2)
        shares = component_shares(model, means)
        used = shares.argsort(descending=True)[:COMPONENTS]
        prior_m, prior_v = (p.detach()[0, used].cpu().numpy() for p in model.z_prior)
        widths, heights = 2 * np.sqrt(prior_v).T
        strongest, shown = shares[used[0]].item(), shares[used].sum().item()
        label = f"{len(used)} of {len(shares)} components of p(z), one standard deviation; "
        label += f"likeliest for {shown:.0%} of the images"
        axes.add_collection(
            EllipseCollection(
                widths,
                heights,
                angles=0 * widths,
                units="xy",
                offsets=prior_m,
                offset_transform=axes.transData,
                facecolors="none",
                edgecolors=[(0, 0, 0, 0.6 * s / strongest) for s in shares[used].tolist()],
                zorder=2,
                linewidths=1,
            )
        )
        axes.legend(handles=[Line2D([], [], color="black", linewidth=1, label=label)])
    return figure


def component_shares(model: torch.nn.Module, means: Tensor) -> Tensor:
    """The share of the images for which each component of a mixture prior p(z) is the likeliest.

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


def manifold(model: torch.nn.Module, x: Tensor, labels: Tensor, heading: str = "", size: int = 20):
    """E[x|z] on a grid over the range of the posterior means, z_1 to the right and z_2 upwards.

    The grid's lines are at quantiles of the means, so that they are close where the images are: on
    an even grid, a few outlying images would squeeze most digits into the middle.

    Args:
        model: a model with two-dimensional z
        x: tensor: (n, x_dim): images in [0, 1]
        labels: tensor: (n,)
        heading: what to write above
        size: int: lines of the grid each way

    Returns:
        matplotlib's Figure
    """
    z, grid = manifold_grid(model, posterior_means(model, x, labels), size)
    figure, axes = _square(heading, f"E[x|z], lines at {size} quantiles of the posterior means")
    pixels = grid.expand(3, -1, -1).permute(1, 2, 0).numpy()
    axes.imshow(pixels, extent=(0, size, 0, size), interpolation="nearest")
    every = max(size // 10, 1)
    places = [i + 0.5 for i in range(0, size, every)]
    for axis, values in ((axes.xaxis, z[0, ::every, 0]), (axes.yaxis, z[:, 0, 1].flip(0)[::every])):
        axis.set_ticks(places, [f"{value:.1f}" for value in values.tolist()])
    return figure


def manifold_grid(model: torch.nn.Module, means: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The points of `manifold`, (size, size, 2), z_2 from the top down; and the grid of images."""
    quantiles = np.quantile(means.cpu().numpy(), np.linspace(0, 1, size), axis=0)
    z_1, z_2 = torch.tensor(quantiles.T.tolist(), device=means.device)
    z = torch.stack([z_1.expand(size, size), z_2.flip(0)[:, None].expand(size, size)], dim=-1)
    return z, _grid(model.compute_mean_given(z), size)


def _plane(means: Tensor, heading: str, title: str):
    """Axes that show the range of the means, the range of `manifold`."""
    figure, axes = _square(heading, title)
    for (low, high), limit in zip(
        zip(means.amin(0).tolist(), means.amax(0).tolist(), strict=True),
        (axes.set_xlim, axes.set_ylim),
        strict=True,
    ):
        limit(low, high)
    return figure, axes


def _square(heading: str, title: str):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 10.4), layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlabel="$z_1$", ylabel="$z_2$", title=f"{heading}\n{title}" if heading else title)
    return figure, axes


# Curves


def curves(history: dict[str, list[list[float]]], heading: str = ""):
    """NELBO, KL and Rec against iterations, of training minibatches and of held-out images.

    Args:
        history: by "train" and "test": rows of iteration, NELBO, KL, Rec
        heading: what to write above

    Returns:
        matplotlib's Figure
    """
    from matplotlib.figure import Figure

    train, test = (np.array(history[kind]).reshape(-1, 4) for kind in ("train", "test"))
    figure = Figure(figsize=(15, 5), layout="constrained")
    figure.suptitle(heading)
    for i, name in enumerate(("NELBO", "KL", "Rec"), start=1):
        axes = figure.add_subplot(1, 3, i)
        points = {"marker": "o", "markersize": 5}
        # A lone point has no line.
        line = {"linewidth": 0.8, "marker": "." if len(train) < 20 else ""}
        axes.plot(train[:, 0], train[:, i], color=PALETTE[6], label="training minibatches", **line)
        axes.plot(test[:, 0], test[:, i], color=PALETTE[5], label="held-out images", **points)
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


# Files


def png(picture, heading: str = "") -> bytes:
    """A Picture, or a matplotlib Figure, as the contents of a PNG file."""
    buffer = io.BytesIO()
    if isinstance(picture, Picture):
        pixels = as_pixels(picture, heading).squeeze(2).numpy()
        Image.fromarray(pixels).save(buffer, format="png", compress_level=3)
    else:
        picture.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()


def as_images(x: Tensor) -> Tensor:
    """(..., x_dim) → (n, channels, height, width), in [0, 1], on the CPU."""
    return x.detach().cpu().clamp(0, 1).reshape(-1, *IMAGE_SHAPES[x.shape[-1]])


def _grid(x: Tensor, columns: int) -> Tensor:
    """Images (..., x_dim) row by row with black lines between them: (channels, height, width)."""
    images = as_images(x)
    columns = min(columns, len(images))
    images = F.pad(images, (EDGE, 0, EDGE, 0))  # to the left and above
    images = F.pad(images, (0, 0, 0, 0, 0, 0, 0, -len(images) % columns))  # a last row's gaps
    grid = images.unflatten(0, (-1, columns)).permute(2, 0, 3, 1, 4)  # channel, row, y, column, x
    return F.pad(grid.flatten(1, 2).flatten(2, 3), (0, EDGE, 0, EDGE))
