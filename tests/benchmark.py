"""How fast training is, beside a straightforward implementation; not a test.

    python tests/benchmark.py

Three processes train each model in turn, the project's, the project's with --compile 1 and a
baseline, so that all rates are from the same minutes; the table has medians. The baseline uses a
DataLoader over torchvision's data set with ToTensor, torch.bernoulli, Adam without fusion, the loss
in the progress bar at every step, ten copies of each image for the SSVAE's ten labels, and the
mixture density elementwise.
"""

import argparse
import importlib
import itertools
import math
import multiprocessing
import os
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def build(name, folder):
    """Return a run script's model and its minibatches of synthetic digits."""
    import torch

    from codebase import models

    torch.manual_seed(0)
    experiment = importlib.import_module(f"run_{name}").experiment
    flags = argparse.Namespace(**experiment.identity({}, "synthetic"))
    where = {"source": "synthetic", "data_dir": folder, "device": "cpu"}
    return models.build(experiment.model(flags), name), experiment.data(flags, where).batches


def project_training(name, folder, compiled=False):
    """A function that trains for so many iterations, as the run scripts do."""
    from codebase.machine import tuning

    tuning.load_torch()
    from codebase.train import Trainer

    tuning.tune_process()
    trainer = Trainer(*build(name, folder))
    if compiled:
        trainer.compile()
    return lambda iterations: trainer.train(trainer.step + iterations, 10**9)


def compiled_training(name, folder):
    return project_training(name, folder, compiled=True)


def baseline_training(name, folder):
    """The same model in the obvious way."""
    import torch
    from torch.nn import functional as F
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms
    from tqdm import tqdm

    model, batches = build(name, folder)
    plain_methods(model, name)
    to_tensor = transforms.ToTensor()
    if name == "fsvae":
        images = datasets.SVHN.__new__(datasets.SVHN)  # its file cannot be had: other images
        images.data = batches.images.view(-1, 3, 32, 32).numpy()
        images.labels = batches.targets[0].argmax(1).numpy()
        images.transform, images.target_transform = to_tensor, None
    else:
        images = datasets.MNIST(folder / "synthetic", train=True, transform=to_tensor)
    loader = DataLoader(images, batch_size=batches.batch_size, shuffle=True)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)

    def run(iterations):
        epochs = itertools.chain.from_iterable(itertools.repeat(loader))
        bar = tqdm(total=iterations, file=open(os.devnull, "w", encoding="utf-8"))
        for x, y in itertools.islice(epochs, iterations):
            x = x.reshape(len(x), -1)
            batch = (x, F.one_hot(y, 10).float()) if name == "fsvae" else (torch.bernoulli(x),)
            if name == "ssvae":
                xl, yl = batches.labelled
                batch += (torch.bernoulli(xl), yl)
            optimiser.zero_grad()
            loss, _ = model.loss(*batch)
            loss.backward()
            optimiser.step()
            bar.set_postfix(loss=f"{loss.item():.2e}")
            bar.update(1)

    return run


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


def work(pipe, training, name, folder, seconds):
    """Measure, whenever the pipe says so: iterations per second, and the most MB so far."""
    import resource

    run = training(name, folder)
    run(20)
    started = time.perf_counter()
    run(10)
    iterations = max(int(10 * seconds / (time.perf_counter() - started)), 2)
    pipe.send(iterations)
    while pipe.recv():
        started = time.perf_counter()
        run(iterations)
        rate = iterations / (time.perf_counter() - started)
        pipe.send((rate, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = ("vae", "gmvae", "ssvae", "fsvae")
    parser.add_argument("models", nargs="*", default=names, help="which models")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each")
    parser.add_argument("--seconds", type=float, default=3, help="of each measurement")
    parser.add_argument("--data_dir", type=Path, default=ROOT / "data", help="data sets' folder")
    args = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    print("| training | it/s | baseline it/s | ratio | `--compile 1` / eager | MB |")
    print("|---|---|---|---|---|---|")
    for name in args.models:
        pipes, processes = [], []
        for training in (project_training, baseline_training, compiled_training):
            pipe, other = spawn.Pipe()
            arguments = (other, training, name, args.data_dir, args.seconds)
            processes.append(spawn.Process(target=work, args=arguments, daemon=True))
            processes[-1].start()
            pipe.recv()
            pipes.append(pipe)
        rounds = []
        for _ in range(args.rounds):
            measured = []
            for pipe in pipes:
                pipe.send(True)
                measured.append(pipe.recv())
            (rate, peak), (baseline, _), (compiled, _) = measured
            rounds.append((rate, baseline, rate / baseline, compiled / rate, peak))
        rate, baseline, ratio, faster, peak = map(statistics.median, zip(*rounds, strict=True))
        print(f"| {name} | {rate:.0f} | {baseline:.0f} | {ratio:.2f} | {faster:.2f} | {peak:.0f} |")
        for pipe, process in zip(pipes, processes, strict=True):
            pipe.send(False)
            process.join()


if __name__ == "__main__":
    main()
