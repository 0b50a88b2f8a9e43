"""The results published with the homework, and the results of this project's replicates."""

METRICS = ("NELBO", "KL", "Rec", "IWAE-1", "IWAE-10", "IWAE-100", "IWAE-1000")


def _of(means: tuple, deviations: tuple, *number: int) -> dict[str, tuple]:
    values = zip(METRICS, means, deviations, strict=True)
    return {metric: (mean, deviation, *number) for metric, mean, deviation in values}


# Mean and standard deviation of 100 runs in nats, and the classifier's accuracy, which with gw 0 is
# of a single run.
PUBLISHED = {
    "model=vae_z=10": _of(
        (101.5, 19.29, 82.57, 99.83, 97.13, 96.10, 95.62),
        (0.55, 0.17, 0.56, 0.55, 0.48, 0.42, 0.42),
    ),
    "model=gmvae_z=10_k=500": _of(
        (97.22, 17.65, 79.58, 97.22, 94.74, 93.80, 93.38),
        (0.54, 0.18, 0.60, 0.54, 0.48, 0.47, 0.46),
    ),
    "model=ssvae_gw=000_cw=100": {"accuracy": (0.735, None)},
    "model=ssvae_gw=001_cw=100": {"accuracy": (0.9340, 0.0139)},
}
# On two x86-64 cores: mean, standard deviation, number of runs.
REPLICATES = {
    "model=vae_z=10": _of(
        (101.35, 19.36, 81.99, 101.35, 98.66, 97.61, 97.14),
        (0.49, 0.15, 0.59, 0.48, 0.41, 0.44, 0.44),
        10,
    ),
    "model=gmvae_z=10_k=500": _of(
        (98.94, 17.75, 81.20, 98.95, 96.44, 95.52, 95.05),
        (0.46, 0.21, 0.52, 0.44, 0.44, 0.35, 0.41),
        10,
    ),
    "model=ssvae_gw=000_cw=100": {"accuracy": (0.7472, 0.0048, 5)},
    "model=ssvae_gw=001_cw=100": {"accuracy": (0.9428, 0.0062, 4)},
}
# How they were trained.
USUAL = {"batch_size": 97, "lr": 1e-3}
ITERATIONS = dict(zip(PUBLISHED, (20_000, 20_000, 30_000, 30_000), strict=True))
