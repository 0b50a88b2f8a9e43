"""--test_set 1: the bounds of a VAE or GMVAE on all 10,000 test images."""

import torch
from torch import Tensor
from tqdm.auto import tqdm

from codebase import utils as ut
from codebase.models import VAE


@torch.no_grad()
def evaluate_test_set(
    model: VAE, images: Tensor, iw: int = 1000, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Print and return the bounds on a whole test set, in nats.

    Args:
        model: a VAE or GMVAE
        images: tensor: (n, x_dim): grey levels in [0, 1], binarised once if
            the model is for binary images
        iw: int: number of importance weights, and of draws for the NELBO
        seed: int: seed of the binarisation

    Returns:
        NELBO and IWAE-iw: each the mean over the images, and its standard error
    """
    torch.manual_seed(seed)
    x = model.likelihood.observe(images.cpu()).to(images.device)
    nelbo, niwae = [], []
    for batch in tqdm(x.split(100), desc=f"Test set, {iw} draws per image", unit="batch"):
        kl, rec = model.importance_terms(batch, iw)
        nelbo.append((kl + rec).mean(0))
        niwae.append(-ut.log_mean_exp(-(kl + rec), dim=0))
    figures = {}
    for name, parts in (("NELBO", nelbo), (f"IWAE-{iw}", niwae)):
        values = torch.cat(parts).cpu().double()
        figures[name] = values.mean().item(), (values.std() / len(values) ** 0.5).item()
    binarised = f", binarised with seed {seed}" if model.likelihood.binary else ""
    shown = ". ".join(f"{name}: {mean:.2f} ± {se:.2f}" for name, (mean, se) in figures.items())
    print(f"Test set of {len(x):,} images{binarised}, mean ± standard error. {shown}")
    return figures
