"""Train a semi-supervised VAE on MNIST with 100 labelled images and report its classifier's
accuracy (--train 0: evaluate trained weights)."""

import codebase
from codebase.project import SSVAE_RUN
from codebase.runs.experiment import Experiment
from codebase.runs.flags import CW, GW
from codebase.runs.main import main

experiment = Experiment(
    about=__doc__,
    name=SSVAE_RUN,
    flags=[GW, CW],
    model=lambda flags: {
        "class": "SSVAE",
        "nn": "v1",
        "gen_weight": flags.gw,
        "class_weight": flags.cw,
    },
    # Minibatches of unlabelled MNIST with the 100 labelled images in each; the test set.
    data=lambda flags, where: codebase.data.get_mnist_data(
        **where, batch_size=flags.batch_size, labels="few"
    ),
    evaluate=lambda model, data: {
        "accuracy": codebase.evaluate.evaluate_classifier(model, data.test)
    },
    iter_max=30_000,
    next=lambda flags: (
        "python run_fsvae.py, which is given every label"
        if flags.gw
        else "python run_ssvae.py, which learns from the images without labels too"
    ),
)

if __name__ == "__main__":
    main(experiment)
