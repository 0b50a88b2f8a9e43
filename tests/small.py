"""Small synthetic data sets and short reports, for processes that test something else."""

from pathlib import Path

from PIL import Image

from codebase import data, evaluate, figures
from codebase.datasets import synthetic

DIGITS_MD5 = {
    "train-images-idx3-ubyte": "e84064ef0e8027e250dbc393941f7ca2",
    "train-labels-idx1-ubyte": "513f127ed64162452349d28ad819c7d0",
    "t10k-images-idx3-ubyte": "fae1420c109d8e7ca621d87eddef5d8f",
    "t10k-labels-idx1-ubyte": "efcdc7b078cbd5198dd0787b3f2ed3d4",
}
HOUSE_NUMBERS_MD5 = {
    "train-images-idx3-ubyte": "51c7d6177eb60ba242ccfe4be6208577",
    "train-labels-idx1-ubyte": "dc6eaa15331f349f4e2d6bf41d7958d5",
}
SCREEN = 300  # pixels across of pictures


def take_small_data() -> None:
    """7,500 synthetic digits instead of 70,000, and 3,000 house numbers.

    The homework's fixed subsets take other positions, where a class has fewer images.
    """
    synthetic.TRAIN_COUNTS, synthetic.TEST_COUNTS = (600,) * 10, (150,) * 10
    synthetic.NUM_HOUSE_NUMBERS = 3000
    synthetic.DIGITS_MD5, synthetic.HOUSE_NUMBERS_MD5 = DIGITS_MD5, HOUSE_NUMBERS_MD5

    def subset_index(labels, positions):
        counts = labels.bincount().tolist()
        inside = [[i % n for i in own] for n, own in zip(counts, positions, strict=True)]
        return index(labels, inside)

    index, data.subset_index = data.subset_index, subset_index


def draw(folder: Path, house_numbers: bool = True) -> None:
    """In a child: draw what `take_small_data` takes."""
    take_small_data()
    synthetic.draw_digits(folder / "synthetic" / "MNIST" / "raw")
    if house_numbers:
        synthetic.draw_house_numbers(folder / "synthetic" / "SVHN")


def shorten_reports() -> None:
    """Two evaluations instead of 100, up to IWAE-10; small pictures without their headings."""
    evaluate.REPEATS, evaluate.IMPORTANCE_WEIGHTS = 2, (1, 10)
    figures.SCREEN = SCREEN
    as_pixels, save = figures.as_pixels, Image.Image.save
    figures.as_pixels = lambda picture, heading: as_pixels(picture._replace(title=""))

    def save_soon(image, file, format=None, **options):
        save(image, file, format, **options | {"compress_level": 1})

    Image.Image.save = save_soon
