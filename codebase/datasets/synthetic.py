"""Draw digits from strokes, for use if MNIST or SVHN is not available.

Each image shows its digit, written in one of several ways: its control points are moved, and it is
slanted, rotated, scaled, shifted and inked by a pen of random width and softness. Every machine
draws the same images: the only draws are uniform ones from NumPy's legacy generator, whose stream
is frozen, and the only arithmetic is +, −, ×, ÷ and square roots, one operation at a time, which
IEEE 754 fixes to the last bit. (So rotations do not use sines.)
"""

from pathlib import Path

import numpy as np
from numpy.random import RandomState
from tqdm import tqdm

from codebase.machine.files import write_atomically

# MNIST's own class counts, so that every position in a fixed subset exists here too.
COUNTS = {
    "train": (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
    "t10k": (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009),
}
NUM_HOUSE_NUMBERS = 30_000
DIGITS_MD5 = {
    "train-images-idx3-ubyte": "bff6a51e88dbfb928e6e97af62e46e5a",
    "train-labels-idx1-ubyte": "3c0e4e2f16f7a43809e2ac8054e84b69",
    "t10k-images-idx3-ubyte": "bf327f25fa6316aa6c283afc391cd8da",
    "t10k-labels-idx1-ubyte": "3547530b69952eb08c9f42357fcf8fc9",
}
HOUSE_NUMBERS_MD5 = {
    "train-images-idx3-ubyte": "527119b887926b285894a7ff86fa2c46",
    "train-labels-idx1-ubyte": "d035079494c56feb2ce9001aa119bbf6",
}

# The ways of writing each digit: strokes of quadratic Bézier curves in the unit square, x to the
# right and y down. Points on the curve and control points alternate, each written as "x,y".
WAYS = (
    (  # 0
        ".55,0 .08,-.02 .1,.5 .12,1 .5,1 .9,1 .9,.5 .88,.02 .5,.02",
        ".7,.1 .2,-.1 .12,.5 .1,1.05 .5,1 .95,.9 .88,.4 .8,-.02 .4,.06",
    ),
    (  # 1
        ".5,0 .5,.5 .5,1",
        ".55,0 .5,.5 .48,1",
        ".3,.25 .45,.15 .52,0 .52,.5 .52,1",
        ".3,.22 .45,.15 .52,0 .52,.5 .52,1|.28,1 .5,1 .76,1",
    ),
    (  # 2
        ".14,.28 .15,0 .5,0 .88,.02 .84,.32 .78,.58 .1,1 .5,.98 .92,.98",
        ".16,.2 .3,-.02 .55,.02 .9,.1 .8,.4 .7,.66 .35,.92 .1,1.05 .1,.86"
        " .2,.7 .5,.9 .7,1.02 .95,.9",
        ".12,.14 .45,-.08 .72,.08 .95,.3 .6,.62 .4,.8 .12,.98 .5,1 .88,.94",
    ),
    (  # 3
        ".15,.12 .45,-.1 .72,.08 .95,.35 .4,.47 1.02,.5 .86,.8 .65,1.12 .1,.9",
        ".12,.02 .5,.02 .86,.02 .6,.2 .42,.4 1.05,.4 .88,.78 .65,1.15 .12,.88",
        ".2,.15 .5,-.1 .75,.1 .9,.38 .5,.46 .4,.48 .5,.5 .98,.55 .82,.85 .55,1.1 .12,.85",
    ),
    (  # 4
        ".25,0 .15,.3 .08,.6 .5,.6 .95,.58|.74,.12 .7,.5 .68,1",
        ".66,0 .35,.32 .05,.66 .5,.66 .96,.66|.66,0 .66,.5 .66,1",
        ".14,.02 .02,.5 .3,.52 .6,.52 .84,.4|.86,0 .84,.5 .8,1",
    ),
    (  # 5
        ".86,.02 .55,.02 .26,.02 .22,.2 .2,.44 .6,.28 .82,.55 1,.98 .5,1 .25,1 .1,.86",
        ".24,.04 .22,.2 .2,.42 .7,.3 .82,.6 .9,.98 .45,1 .2,1 .08,.88|.24,.04 .55,.05 .88,0",
        ".9,.06 .6,.0 .36,.06 .28,.3 .24,.42 .8,.5 .78,.72 .7,1.05 .1,.98",
    ),
    (  # 6
        ".74,.02 .2,.2 .12,.65 .1,1 .5,1 .9,1 .88,.7 .85,.42 .5,.46 .2,.5 .13,.78",
        ".5,0 .1,.4 .12,.75 .15,1.02 .5,1 .86,.98 .84,.74 .78,.5 .48,.56 .2,.62 .16,.8",
        ".82,.1 .5,-.12 .24,.3 .02,.75 .3,.95 .65,1.1 .82,.76 .86,.46 .5,.5 .26,.55 .18,.78",
    ),
    (  # 7
        ".1,.03 .5,.03 .9,.02 .6,.45 .42,1",
        ".1,.06 .5,.02 .88,.06 .72,.5 .6,1",
        ".1,.03 .5,.03 .9,.02 .6,.45 .42,1|.36,.52 .6,.5 .84,.5",
        ".12,.2 .1,.06 .14,.06 .5,.08 .88,.04 .5,.5 .38,1",
    ),
    (  # 8
        ".5,.47 .1,.38 .15,.2 .2,0 .5,0 .82,0 .85,.2 .88,.4 .5,.47"
        " .06,.55 .1,.78 .12,1 .5,1 .9,1 .9,.78 .92,.55 .5,.47",
        ".84,.14 .5,-.1 .24,.1 .1,.32 .5,.48 1.02,.68 .82,.88 .5,1.12 .18,.88"
        " .02,.66 .5,.48 .9,.32 .84,.14",
    ),
    (  # 9
        ".85,.26 .84,0 .5,0 .14,0 .13,.3 .14,.58 .48,.57 .8,.55 .86,.24 .88,.6 .74,1",
        ".85,.26 .84,0 .5,0 .14,0 .13,.3 .14,.58 .48,.57 .84,.54 .86,.26"
        " .92,.9 .5,1 .3,1.02 .18,.9",
        ".8,.12 .4,-.12 .18,.22 .08,.52 .42,.52 .76,.48 .82,.1 .82,.5 .84,1",
    ),
)
MOST_POINTS = 17  # of a way of writing
PIECES = 5  # straight pieces that each curve is drawn as
INK_BLOCK = 512  # images inked at once: measured, from 64 to 1024
BLOCK = 256  # images coloured at once; another number would give other draws


# Files


def draw_digits(folder: Path) -> None:
    """Draw 60,000 training and 10,000 test digits in grey, in four files like MNIST's.

    Raises:
        OSError: the folder cannot be written to
    """
    with tqdm(total=70_000, desc="Drawing synthetic digits", unit="images") as progress:
        for prefix, seed in (("train", 1), ("t10k", 2)):
            random = RandomState(seed)
            labels = random.permutation(np.repeat(np.arange(10), COUNTS[prefix]))
            height = _uniform(random, 17, 21, len(labels))
            centre = _uniform(random, 12.5, 15.5, len(labels), 2)
            width = _uniform(random, 0.9, 2.1, len(labels))
            pen = width, _uniform(random, 0.8, 1.8, len(labels))
            ink = draw_ink(random, labels, 28, height, centre, pen, progress)
            _write(folder, prefix, ink, labels)


def draw_house_numbers(folder: Path) -> None:
    """Draw 30,000 coloured digits, with parts of other digits beside them, as two IDX files.

    The images file holds three planes of 32×32 for each image: red, green, blue.

    Raises:
        OSError: the folder cannot be written to
    """
    n = NUM_HOUSE_NUMBERS
    with tqdm(total=3 * n, desc="Drawing synthetic SVHN-like digits", unit="digits") as progress:
        random = RandomState(3)
        labels = random.randint(10, size=n, dtype=np.int64)
        height = _uniform(random, 17, 27, n)
        pen = _uniform(random, 1.1, 2.4, n), _uniform(random, 0.8, 3.5, n)
        centre = _uniform(random, 14.5, 17.5, n, 2)
        ink = draw_ink(random, labels, 32, height, centre, pen, progress)
        for side in (-1, 1):  # the neighbours to the left and right, some out of sight
            beside = centre + side * np.stack(
                [height * _uniform(random, 0.65, 1.2, n), _uniform(random, -2, 2, n)], axis=1
            )
            digits = random.randint(10, size=n, dtype=np.int64)
            ink = np.maximum(ink, draw_ink(random, digits, 32, height, beside, pen, progress))
        images = np.empty((n, 3, 32, 32), dtype=np.uint8)
        for start in range(0, n, BLOCK):
            block = slice(start, start + BLOCK)
            images[block] = _coloured(random, ink[block])
        _write(folder, "train", images.reshape(-1, 32, 32), labels)


def _write(folder: Path, prefix: str, images: np.ndarray, labels: np.ndarray) -> None:
    """Write both IDX files atomically; processes that draw at the same time write equal bytes."""
    for name, values in (
        (f"{prefix}-images-idx3-ubyte", images),
        (f"{prefix}-labels-idx1-ubyte", labels.astype(np.uint8)),
    ):
        header = np.array([0x0800 + values.ndim, *values.shape], dtype=">u4")
        write_atomically(folder / name, header.tobytes() + values.tobytes())


# Drawing


def draw_ink(
    random: RandomState,
    digits: np.ndarray,
    size: int,
    height: np.ndarray,
    centre: np.ndarray,
    pen: tuple[np.ndarray, np.ndarray],
    progress,
) -> np.ndarray:
    """Draw ink on paper of size × size pixels: uint8 (n, size, size), 0 for none.

    digits: (n,): the digits to draw
    height, centre: (n,), (n, 2): size and position of each digit, in pixels; x comes first
    pen: (n,), (n,): half the width of a line, and the width of its soft edge, in pixels
    """
    n = len(digits)
    way = random.random_sample(n)
    moved = _uniform(random, -0.055, 0.055, n, MOST_POINTS, 2)
    bend = _uniform(random, -0.12, 0.12, n, 2)
    slant, turn = _uniform(random, -0.2, 0.45, n), _uniform(random, -0.13, 0.13, n)
    aspect = _uniform(random, 0.55, 0.95, n)
    ink = np.empty((n, size, size), dtype=np.uint8)

    for digit, ways in enumerate(WAYS):
        for w, strokes in enumerate(ways):
            index = np.flatnonzero((digits == digit) & ((way * len(ways)).astype(int) == w))
            for i in np.split(index, range(INK_BLOCK, len(index), INK_BLOCK)):
                lines = _curves(strokes, moved[i])
                lines = _placed(lines, bend[i], slant[i], turn[i], aspect[i], height[i], centre[i])
                half_width, edge = (p[i].astype(np.float32) for p in pen)
                distance = _distance(lines, size, reach=(half_width + edge / 2).max() + 0.01)
                level = np.clip((half_width - distance) / edge + np.float32(0.5), 0, 1)
                level = level * level * (3 - 2 * level)  # a smooth step, which softens the edge
                ink[i] = np.rint(level * 255).astype(np.uint8).transpose(2, 0, 1)
                progress.update(len(i))
    return ink


def _uniform(random: RandomState, low: float, high: float, *shape: int) -> np.ndarray:
    return low + (high - low) * random.random_sample(shape)


def _curves(strokes: str, moved: np.ndarray) -> np.ndarray:
    """Cut a digit's strokes into straight pieces: (n, points, 2) → (n, pieces, 2 ends, 2)."""
    lines, first = [], 0
    t = np.arange(PIECES + 1)[:, None] / PIECES
    for stroke in strokes.split("|"):
        points = np.array([[float(c) for c in point.split(",")] for point in stroke.split()])
        points = points + moved[:, first : first + len(points)]
        first += points.shape[1]
        for k in range(0, points.shape[1] - 1, 2):
            p, control, q = (points[:, None, k + j] for j in range(3))
            curve = (1 - t) * (1 - t) * p + 2 * t * (1 - t) * control + t * t * q
            lines.append(np.stack([curve[:, :-1], curve[:, 1:]], axis=2))
    return np.concatenate(lines, axis=1)


def _placed(lines, bend, slant, turn, aspect, height, centre) -> np.ndarray:
    """Bend, slant and rotate lines in the unit square; scale and centre them in pixels."""
    bend_x, bend_y, slant, turn, aspect, height = (
        a[:, None, None] for a in (*bend.T, slant, turn, aspect, height)
    )
    x, y = lines[..., 0] - 0.5, lines[..., 1] - 0.5
    x, y = x + bend_x * (1 - 4 * y * y), y + bend_y * (1 - 4 * x * x)
    x = aspect * x - slant * y
    # A rotation by 2·arctan(turn), without a sine.
    cos, sin = (1 - turn * turn) / (1 + turn * turn), 2 * turn / (1 + turn * turn)
    x, y = cos * x - sin * y, sin * x + cos * y
    low_x, high_x = x.min((1, 2), keepdims=True), x.max((1, 2), keepdims=True)
    low_y, high_y = y.min((1, 2), keepdims=True), y.max((1, 2), keepdims=True)
    scale = height / np.maximum(high_x - low_x, high_y - low_y)
    x = (x - (low_x + high_x) / 2) * scale + centre[:, 0, None, None]
    y = (y - (low_y + high_y) / 2) * scale + centre[:, 1, None, None]
    return np.stack([x, y], axis=-1)


def _distance(lines: np.ndarray, size: int, reach: float) -> np.ndarray:
    """Return each pixel's distance to the nearest line: (n, pieces, 2 ends, 2) → (size, size, n).

    If no line is nearer than `reach`, the value is inf or at least `reach`, because each line is
    compared only with the pixels that are within `reach` of it in some image.
    """
    pixel = np.arange(size, dtype=np.float32)[:, None] + np.float32(0.5)
    squared = np.full((size, size, len(lines)), np.inf, dtype=np.float32)
    for ends in lines.astype(np.float32).transpose(1, 2, 3, 0):
        (x0, y0), (x1, y1) = ends
        first = np.maximum(ends.min((0, 2)) - reach - 1, 0).astype(int)
        last = (ends.max((0, 2)) + reach + 1).astype(int)
        columns, rows = (slice(*pair) for pair in zip(first, last, strict=True))
        dx, dy = x1 - x0, y1 - y0
        x, y = pixel[columns] - x0, pixel[rows, None] - y0  # (columns, n), (rows, 1, n)
        length = dx * dx + dy * dy + np.float32(1e-12)
        along = np.clip(x * (dx / length) + y * (dy / length), 0, 1)
        near = squared[rows, columns]
        np.minimum(near, np.square(x - along * dx) + np.square(y - along * dy), out=near)
    return np.sqrt(squared)


def _coloured(random: RandomState, ink: np.ndarray) -> np.ndarray:
    """Put ink in one colour on a wall of another, with shade and noise: (n, 3, 32, 32)."""
    n, size, _ = ink.shape

    def uniform(low: float, high: float, *shape: int) -> np.ndarray:
        return _uniform(random, low, high, n, *shape).astype(np.float32)

    wall = uniform(0.1, 0.9, 1, 1, 1) + uniform(-0.12, 0.12, 3, 1, 1)
    contrast = uniform(0.25, 0.6, 1, 1, 1)
    brightness = (wall[:, :1] + wall[:, 1:2] + wall[:, 2:]) / 3
    darker = uniform(0.15, 0.85, 1, 1, 1) < brightness
    paint = wall + np.where(darker, -contrast, contrast) + uniform(-0.12, 0.12, 3, 1, 1)
    across = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / size - np.float32(0.5)
    light = uniform(-0.25, 0.25, 1, 1, 1) * across
    light = light + uniform(-0.25, 0.25, 1, 1, 1) * across[:, None]
    alpha = ink[:, None].astype(np.float32) / 255
    drawn = np.frombuffer(random.bytes(3 * ink.size), dtype=np.uint8)
    grain = drawn.reshape(n, 3, size, size).astype(np.float32) / 255 - np.float32(0.5)
    noise = grain * uniform(0, 0.12, 1, 1, 1)
    image = wall + alpha * (paint - wall) + light + noise
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
