"""Train a semi-supervised VAE on MNIST, 100 images labelled, and report its classifier's accuracy
(--train 0: report that of trained weights)."""

from codebase import cli, data, evaluate
from codebase.experiment import Experiment
from codebase.models.ssvae import SSVAE


def main():
    flags = cli.parser(__doc__, dataset="mnist", iter_max=30_000)
    flags.add_argument("--gw", type=cli.at_least(0), default=1, help="weight of the negative ELBO")
    flags.add_argument("--cw", type=cli.at_least(0), default=100, help="weight of cross-entropy")
    cli.main(flags, Experiment("mnist", name, build, load, report))


def name(args):
    return f"model=ssvae_gw={args.gw:03d}_cw={args.cw:03d}"


def build(args, name):
    return SSVAE(gen_weight=args.gw, class_weight=args.cw, name=name)


def load(args, device, source):
    """Unlabelled images with the 100 labelled ones beside them, those 100, and the test set."""
    loader, labelled, test = data.get_mnist_data(
        device,
        use_test_subset=False,
        data_dir=args.data_dir,
        source=source,
        batch_size=args.batch_size,
    )
    return loader.without_labels(labelled), labelled, test


def report(model, subset, test):
    return {"accuracy": evaluate.evaluate_classifier(model, test)}


if __name__ == "__main__":
    main()
