"""Train a VAE on MNIST and report its bounds (--train 0: report those of trained weights)."""

from codebase import cli, data, evaluate
from codebase.experiment import Experiment
from codebase.models.laplace_vae import LaplaceVAE
from codebase.models.vae import VAE


def main():
    flags = cli.parser(__doc__, dataset="mnist", iter_max=20_000)
    cli.add_vae_flags(flags)
    priors = ("gaussian", "laplace")
    flags.add_argument("--prior", choices=priors, default="gaussian", help="family of p(z), q(z|x)")
    variants = cli.VAE_VARIANTS | {"prior": "gaussian"}
    cli.main(flags, Experiment("mnist", name, build, load, report, variants))


def name(args):
    return f"model=vae_z={args.z:02d}"


def build(args, name):
    model = LaplaceVAE if args.prior == "laplace" else VAE
    return model(name=name, **cli.vae_options(args))


def load(args, device, source):
    """Unlabelled images, and the likelihood test subset."""
    loader, subset, test = data.get_mnist_data(
        device,
        use_test_subset=True,
        data_dir=args.data_dir,
        source=source,
        batch_size=args.batch_size,
        binarised=args.likelihood == "bernoulli",
        train_set=args.train > 0,
    )
    return loader.without_labels(), subset, test


def report(model, subset, test):
    return evaluate.evaluate_lower_bound(model, subset)


if __name__ == "__main__":
    main()
