"""Train a VAE on MNIST and report its bounds (--train 0: evaluate trained weights)."""

import codebase
from codebase.runs.experiment import Experiment
from codebase.runs.flags import BETA, LIKELIHOOD, NN, PRIOR, SIGMA2, Z
from codebase.runs.main import main


def model(flags):
    kind = codebase.models.LaplaceVAE if flags.prior == "laplace" else codebase.models.VAE
    likelihood = codebase.models.pixel_likelihood(flags.likelihood, flags.sigma2)
    return kind(nn=flags.nn, z_dim=flags.z, likelihood=likelihood, beta=flags.beta)


experiment = Experiment(
    name="model=vae_z={z:02d}_run={run:04d}",
    flags=[Z, NN, LIKELIHOOD, SIGMA2, BETA, PRIOR],
    model=model,
    # Training minibatches, binarised at each use; 100 test images, binarised once; the test set.
    data=lambda flags, source: codebase.data.unlabelled_mnist(
        source, flags.batch_size, binarised=flags.likelihood == "bernoulli"
    ),
    evaluate=lambda model, data: codebase.evaluate.evaluate_lower_bound(model, data.subset),
    iter_max=20_000,
    next=lambda flags: (
        "python run_gmvae.py, whose prior is a mixture"
        + ("" if flags.z == 2 else "; or --z 2, a latent plane")
    ),
)

if __name__ == "__main__":
    main(experiment, __doc__)
