"""Train a fully supervised VAE on SVHN to separate style from content, and report its bound
(--train 0: evaluate trained weights)."""

import codebase
from codebase.project import FSVAE_RUN
from codebase.runs.experiment import Experiment
from codebase.runs.main import main

experiment = Experiment(
    about=__doc__,
    name=FSVAE_RUN,
    flags=[],
    model=lambda flags: {"class": "FSVAE", "nn": "v2"},
    # Labelled minibatches of SVHN; its first 100 images.
    data=lambda flags, where: codebase.data.get_svhn_data(**where, batch_size=flags.batch_size),
    evaluate=lambda model, data: codebase.evaluate.evaluate_lower_bound(
        model, data.subset, run_iwae=False
    ),
    iter_max=1_000_000,
    dataset="svhn",
    batch_size=100,
    next=lambda flags: "train longer, until each row of samples.png has its digit",
)

if __name__ == "__main__":
    main(experiment)
