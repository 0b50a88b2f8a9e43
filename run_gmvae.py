"""Train a VAE whose prior is a mixture of Gaussians on MNIST and report its bounds (--train 0:
evaluate trained weights)."""

import codebase
from codebase.project import GMVAE_RUN
from codebase.runs.experiment import Experiment
from codebase.runs.flags import BETA, LIKELIHOOD, NN, SIGMA2, K, Z, described
from codebase.runs.main import main

experiment = Experiment(
    about=__doc__,
    name=GMVAE_RUN,
    flags=[Z, K, NN, LIKELIHOOD, SIGMA2, BETA],
    model=lambda flags: {
        "class": "GMVAE",
        "nn": flags.nn,
        "z_dim": flags.z,
        "k": flags.k,
        "likelihood": described(flags),
        "beta": flags.beta,
    },
    # Training minibatches, binarised at each use; 100 test images, binarised once; the test set.
    data=lambda flags, where: codebase.data.get_mnist_data(
        **where,
        batch_size=flags.batch_size,
        binarised=flags.likelihood == "bernoulli",
        labels="none",
    ),
    evaluate=lambda model, data: codebase.evaluate.evaluate_lower_bound(model, data.subset),
    iter_max=20_000,
    weighted=True,
    next=lambda flags: "python run_ssvae.py --gw 0, a classifier that learns from only 100 labels",
)

if __name__ == "__main__":
    main(experiment)
