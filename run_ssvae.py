"""Train a semi-supervised VAE on MNIST, 100 images labelled, and report its classifier's accuracy
(--train 0: report that of trained weights).

The model is codebase/models/ssvae.py, the training loop codebase/train.py; what this script does
with them, and its flags, are in codebase/runs/experiment.py.
"""

from codebase.runs import cli


def main():
    cli.main("ssvae", __doc__)


if __name__ == "__main__":
    main()
