"""How fast training is, beside a straightforward implementation; not a test.

    python tests/benchmark.py

Two processes train each model in turn, the project's and a baseline, so that both rates are from
the same minutes; the table has medians. The baseline uses a DataLoader over torchvision's data set
with ToTensor, torch.bernoulli, Adam without fusion, the loss in the progress bar at every step, ten
copies of each image for the SSVAE's ten labels, and the mixture density elementwise.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

MODELS = ("vae", "gmvae", "ssvae", "fsvae")
SECONDS = 3  # of each measurement


# Two ways to train


def build(name):
    from codebase.models.fsvae import FSVAE
    from codebase.models.gmvae import GMVAE
    from codebase.models.ssvae import SSVAE
    from codebase.models.vae import VAE

    kinds = {"vae": VAE, "gmvae": GMVAE, "ssvae": SSVAE, "fsvae": FSVAE}
    return kinds[name](**({"z_dim": 10} if name in ("vae", "gmvae") else {}))


def project_training(name, data_dir, source, compiled=False):
    """A function that trains for so many iterations, as the run scripts do."""
    from codebase.machine import tuning

    tuning.load_torch()  # torch, with its settings
    import torch
    from tqdm import tqdm

    from codebase import data
    from codebase.train import Trainer

    tuning.tune_process()
    torch.manual_seed(0)
    model = build(name)
    where = data.Source("synthetic" if name == "fsvae" else source, data_dir, torch.device("cpu"))
    load = {"ssvae": lambda *of: data.mnist(*of, labels="few"), "fsvae": data.svhn}
    batches = load.get(name, data.mnist)(where, 100 if name == "fsvae" else 97).batches
    trainer = Trainer(model, batches)
    if compiled:
        trainer.compile()

    def run(iterations):
        with tqdm(file=open(os.devnull, "w", encoding="utf-8")) as bar:
            trainer.train(trainer.step + iterations, 10**9, lambda step: None, bar=bar)

    return run, model, batches


def baseline_training(name, data_dir, source):
    """The same model in the obvious way."""
    import numpy as np
    import torch
    from torch.nn import functional as F
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms
    from tqdm import tqdm

    from codebase import data

    torch.manual_seed(0)
    model = build(name)
    plain_methods(model, name)
    to_tensor = transforms.ToTensor()
    if name == "fsvae":
        batches, _, _ = data.get_svhn_data("cpu", data_dir, "synthetic")
        images = datasets.SVHN.__new__(datasets.SVHN)  # its file cannot be had: other images
        images.data = batches.images.view(-1, 3, 32, 32).numpy()
        images.labels = batches.targets[0].argmax(1).numpy()
        images.transform, images.target_transform = to_tensor, None
        assert isinstance(images.data, np.ndarray)
    else:
        root = data_dir if source == "mnist" else data_dir / "synthetic"
        images = datasets.MNIST(root, train=True, transform=to_tensor)
        _, (xl, yl), _ = data.get_mnist_data("cpu", False, data_dir, source)
    loader = DataLoader(images, batch_size=100 if name == "fsvae" else 97, shuffle=True)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)

    def run(iterations):
        done = 0
        with tqdm(total=iterations, file=open(os.devnull, "w", encoding="utf-8")) as bar:
            while done < iterations:
                for x, y in loader:
                    x = x.reshape(len(x), -1)
                    if name == "fsvae":
                        batch = x, F.one_hot(y, 10).float()
                    elif name == "ssvae":
                        batch = torch.bernoulli(x), torch.bernoulli(xl), yl
                    else:
                        batch = (torch.bernoulli(x),)
                    optimiser.zero_grad()
                    loss, _ = model.loss(*batch)
                    loss.backward()
                    optimiser.step()
                    bar.set_postfix(loss=f"{loss.item():.2e}")
                    bar.update(1)
                    done += 1
                    if done == iterations:
                        break

    return run, model


def plain_methods(model, name):
    """Undo the faster ways: activations in place, the mixture, labels in the bound."""
    import torch
    from torch.nn import functional as F

    from codebase import utils as ut

    for module in model.modules():
        if hasattr(module, "inplace"):
            module.inplace = False

    def log_normal_mixture(z, m, v):
        return ut.log_mean_exp(ut.log_normal(z.unsqueeze(1), m, v), dim=1)

    def negative_elbo_bound(x):
        log_q = F.log_softmax(model.cls.classify(x), 1)
        copies = ut.duplicate(x, 10)
        y = torch.eye(10).repeat_interleave(len(x), 0)
        m, v = model.enc.encode(copies, y)
        z = ut.sample_gaussian(m, v)
        logits = model.dec.decode(z, y)
        kl_y = ut.kl_cat(log_q.exp(), log_q, -math.log(10)).mean()
        kl_z = ut.kl_normal(m, v, *model.z_prior).view(10, -1)
        rec = -ut.log_bernoulli_with_logits(copies, logits).view(10, -1)
        q = log_q.exp().T
        kl_z, rec = (q * kl_z).sum(0).mean(), (q * rec).sum(0).mean()
        return kl_y + kl_z + rec, kl_z, kl_y, rec

    ut.log_normal_mixture = log_normal_mixture
    if name == "ssvae":
        model.negative_elbo_bound = negative_elbo_bound


def operations_of_a_step(model, batches):
    """Floating-point operations of the matrix products of one step, forward and backward."""
    from torch.utils.flop_counter import FlopCounterMode

    batch = next(iter(batches))
    with FlopCounterMode(display=False) as counter:
        model.loss(*batch)[0].backward()
    return counter.get_total_flops()


# Workers: processes that measure when they are told to


def work(way, name, data_dir, source):
    import resource

    if way != "baseline":  # first of all: it sets variables that torch reads when it is loaded
        compiled = way == "compiled"
        run, model, batches = project_training(name, Path(data_dir), source, compiled)
    else:
        run, model = baseline_training(name, Path(data_dir), source)
    import torch

    run(20)
    started = time.perf_counter()
    run(10)
    iterations = max(int(10 * SECONDS / (time.perf_counter() - started)), 10)
    report({"ready": True})
    a = torch.randn(2000, 2000)
    for line in sys.stdin:
        started = time.perf_counter()
        question = line.strip()
        if question == "train":
            run(iterations)
            report({"rate": iterations / (time.perf_counter() - started)})
        elif question == "matrix":
            for _ in range(10):
                a @ a
            report({"rate": 10 * 2 * 2000**3 / (time.perf_counter() - started)})
        elif question == "operations":
            report({"operations": operations_of_a_step(model, batches)})
        else:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            report({"peak": peak})


def report(values):
    print(json.dumps(values), flush=True)


class Worker:
    def __init__(self, *arguments):
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--work", *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        self.answer()

    def ask(self, question):
        self.process.stdin.write(question + "\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self):
        [value] = json.loads(self.process.stdout.readline()).values()
        return value

    def close(self):
        self.process.stdin.close()
        self.process.wait()


# The table


def training_table(models, rounds, data_dir, source):
    print(
        "| training | it/s | baseline it/s | ratio | `--compile 1` / eager | of matmul peak | MB |"
    )
    print("|---|---|---|---|---|---|---|")
    for name in models:
        ways = ("project", "baseline", "compiled")
        project, baseline, compiled = (Worker(way, name, data_dir, source) for way in ways)
        rates, ratios, faster, matrix = [], [], [], []
        for _ in range(rounds):
            rates.append(project.ask("train"))
            ratios.append(rates[-1] / baseline.ask("train"))
            faster.append(compiled.ask("train") / rates[-1])
            matrix.append(project.ask("matrix"))
        rate, ratio, faster, peak = map(statistics.median, (rates, ratios, faster, matrix))
        share = project.ask("operations") * rate / peak
        print(
            f"| {name} | {rate:.0f} | {rate / ratio:.0f} | {ratio:.2f} | {faster:.2f} "
            f"| {share:.0%} | {project.ask('peak'):.0f} |",
            flush=True,
        )
        for worker in (project, baseline, compiled):
            worker.close()


def prepare(folder, data_dir):
    """Lay out the data of all models in one folder, and say which digits they are."""
    from codebase import data

    folder, data_dir = Path(folder), Path(data_dir)
    data.read_svhn(folder, "synthetic")
    source = data.find_or_download("mnist", "auto", data_dir)
    if source == "mnist":
        (folder / "MNIST").symlink_to((data_dir / "MNIST").resolve())
    else:
        data.read_mnist("train", folder, "synthetic")
    print(source)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=MODELS, help="which models")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each")
    parser.add_argument("--data_dir", type=Path, default=ROOT / "data", help="data sets' folder")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        # In a process of its own: a child's peak memory is never below what its parent holds.
        command = [sys.executable, __file__, "--prepare", name, str(args.data_dir)]
        [*_, source] = subprocess.check_output(command, encoding="utf-8").split()
        training_table(args.models, args.rounds, Path(name), source)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(*sys.argv[2:])
    elif sys.argv[1:2] == ["--prepare"]:
        prepare(*sys.argv[2:])
    else:
        main()
