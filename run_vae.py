"""Train a VAE on MNIST and report its bounds (--train 0: evaluate trained weights)."""

import codebase
from codebase.project import VAE_RUN
from codebase.runs.experiment import Experiment
from codebase.runs.flags import BETA, LIKELIHOOD, NN, PRIOR, SIGMA2, Z, described
from codebase.runs.main import main

experiment = Experiment(
    about=__doc__,
    name=VAE_RUN,
    flags=[Z, NN, LIKELIHOOD, SIGMA2, BETA, PRIOR],
    model=lambda flags: {
        "class": "LaplaceVAE" if flags.prior == "laplace" else "VAE",
        "nn": flags.nn,
        "z_dim": flags.z,
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
    next=lambda flags: (
        "python run_gmvae.py, whose prior is a mixture"
        + ("" if flags.z == 2 else "; or --z 2, a latent plane")
    ),
)

if __name__ == "__main__":
    main(experiment)
