"""Train a VAE whose prior is a mixture of Gaussians on MNIST and report its bounds (--train 0:
evaluate trained weights)."""

import codebase
from codebase.runs.experiment import Experiment
from codebase.runs.flags import BETA, LIKELIHOOD, NN, SIGMA2, K, Z
from codebase.runs.main import main


def model(flags):
    likelihood = codebase.models.pixel_likelihood(flags.likelihood, flags.sigma2)
    return codebase.models.GMVAE(
        nn=flags.nn, z_dim=flags.z, k=flags.k, likelihood=likelihood, beta=flags.beta
    )


experiment = Experiment(
    name="model=gmvae_z={z:02d}_k={k:03d}_run={run:04d}",
    flags=[Z, K, NN, LIKELIHOOD, SIGMA2, BETA],
    model=model,
    # Training minibatches, binarised at each use; 100 test images, binarised once; the test set.
    data=lambda flags, source: codebase.data.unlabelled_mnist(
        source, flags.batch_size, binarised=flags.likelihood == "bernoulli"
    ),
    evaluate=lambda model, data: codebase.evaluate.evaluate_lower_bound(model, data.subset),
    iter_max=20_000,
    next=lambda flags: "python run_ssvae.py --gw 0, a classifier that learns from only 100 labels",
)

if __name__ == "__main__":
    main(experiment, __doc__)
