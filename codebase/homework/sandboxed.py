"""Run a submission's functions in the sandbox, where this is the project's only file.

The first process has imported torch, and forks a process for each case. It never runs or reads a
submission's code. The forked process reads the submission and the case, calls the function, and
writes numbers as JSON, never as a pickle, to a file that the kernel copies to the grader. When it
ends, all processes that it started are ended, and its files are deleted. The numbers are compared
outside the sandbox, so no correct outputs are needed here.
"""

import contextlib
import ctypes
import gc
import importlib
import importlib.util
import io
import json
import math
import os
import random
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from typing import Any, NamedTuple
from unittest.mock import MagicMock

import numpy
import torch
from torch import Tensor, nn

with contextlib.suppress(ImportError):  # Windows has none, and grades nothing
    import resource

MOST_VALUES = 4096  # numbers of a result that are compared
MOST_TERMS = 8
NORMAL = (torch.randn, torch.randn_like, torch.normal, torch.Tensor.normal_)
BETA = 2.5  # of a model that has one; the bounds do not have it
OUTPUT, ENCODED = "dec.net.4.weight", "enc.net.4.bias"  # weights that a call may change
# Packages that graded functions do not need, and that take long to import.
SLOW = ("torchvision", "matplotlib", "tensorboard", "tensorboardX", "tensorflow", "wandb", "cv2")
MEGABYTE = 1 << 20
DATA, ADDRESSES = 2000 * MEGABYTE, 1500 * MEGABYTE  # of a process; what a case may map beside torch
FILE, FILES, PROCESSES = 32 * MEGABYTE, 64, 6
LARGEST_ANSWER = 4 * MEGABYTE
PRINTED = 20_000  # bytes of what a submission prints that are kept
WAITING = 3  # a case's wall time may be so many times its CPU time: busy machine, sleep
PLACES = ("/tmp", "/dev/shm", "/var/tmp")  # where a submission may write


# Cases, and calling a function with them; the grader uses this part, too


class Spec(NamedTuple):
    """A random tensor: "normal", "positive", "binary", "uniform" or "one-hot", times a scale."""

    kind: str
    shape: tuple[int, ...]
    scale: float = 1.0


class Call(NamedTuple):
    """A call of a function.

    Args:
        args: its arguments
        repeat: number of repetitions, in one process and with one model, each with its own seed
        gradients: number of repetitions, from the first, that are differentiated
        noise: value of every standard normal draw; None: torch's generator draws
        rows: whether each row of draws has its own value, see `SetNoise`
        steep: factor for the decoder's last weights, and so for its output
        spread: number added to the encoder's bias for the variances
    """

    args: tuple[Spec | int, ...]
    repeat: int = 1
    gradients: int = 0
    noise: float | None = None
    rows: bool = False
    steep: float = 1.0
    spread: float = 0.0


class Case(NamedTuple):
    """Calls of one function of a submission, in one process.

    Args:
        function: name of the function or method
        model: name of the method's class; empty for a function in utils.py
        file: file of the function, below the package
        calls: the calls
        seed: seed of the arguments and weights
        constructor: arguments of the model
        weights: names, shapes and scales of the model's parameters
        seconds: limit on the CPU time
    """

    function: str
    model: str
    file: str
    calls: tuple[Call, ...]
    seed: int
    constructor: tuple[tuple[str, int], ...] = ()
    weights: tuple[tuple[str, tuple[int, ...], float], ...] = ()
    seconds: float = 10.0

    @classmethod
    def read(cls, message: list) -> "Case":
        """Convert a case from JSON."""
        case = cls(*message)
        calls = tuple(
            Call(tuple(Spec(*arg) if isinstance(arg, list) else arg for arg in call[0]), *call[1:])
            for call in case.calls
        )
        return case._replace(calls=calls)


class Drawn(NamedTuple):
    """A case's tensors: the arguments of each call, weights, and directions of derivatives."""

    args: list[list[Any]]
    weights: dict[str, Tensor]
    directions: dict[str, Tensor]


def draw(case: Case) -> Drawn:
    """Draw a case's tensors from its seed."""
    generator = torch.Generator().manual_seed(case.seed)

    def tensor(spec: Spec | int) -> Tensor | int:
        if not isinstance(spec, Spec):
            return spec
        shape = tuple(spec.shape)
        if spec.kind in ("normal", "positive"):
            value = torch.randn(shape, generator=generator)
            value = value.exp() if spec.kind == "positive" else value
        elif spec.kind == "binary":
            value = (torch.rand(shape, generator=generator) < 0.15).float()  # as in MNIST
        elif spec.kind == "uniform":
            value = torch.rand(shape, generator=generator)
        else:
            index = torch.randint(0, shape[-1], shape[:-1], generator=generator)
            value = nn.functional.one_hot(index, shape[-1]).float()
        return value * spec.scale

    weights, directions = {}, {}
    for name, shape, scale in case.weights:
        weights[name] = torch.randn(tuple(shape), generator=generator) * scale
        directions[name] = torch.randn(tuple(shape), generator=generator) / shape[-1] ** 0.5
    args = [[tensor(spec) for spec in call.args] for call in case.calls]
    return Drawn(args, weights, directions)


class SetNoise(torch.overrides.TorchFunctionMode):
    """Set every standard normal draw, and keep the draws for derivatives.

    If all draws are the same number, a function's outputs do not depend on the order of its draws.
    If each row of draws has its own number, an image's importance weights differ, but a correct
    bound is the same for every layout and order of the rows. Derivatives with respect to the draws
    show which draws a term depends on.

    Args:
        value: the number
        rows: whether each row of draws has its own number, with the sign of `value`
    """

    def __init__(self, value: float, rows: bool):
        super().__init__()
        self.value, self.rows = value, rows
        self.draws: list[Tensor] = []
        self.count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func not in NORMAL or not result.is_floating_point():
            return result
        with torch.enable_grad():
            noise = torch.full_like(result, self.value)
            if self.rows and result.dim():
                size = result.numel() // result.shape[-1]
                step = torch.arange(self.count, self.count + size, dtype=result.dtype)
                step = (step * 0.618034 % 1 * 4 - 2) * (1 if self.value > 0 else -1)
                noise = step.repeat_interleave(result.shape[-1]).view(result.shape)
                self.count += size
            noise.requires_grad_(True)
            self.draws.append(noise)
            if func in (torch.randn, torch.randn_like):
                return noise.clone()
            given = list(args[1:] if func is torch.Tensor.normal_ else args)
            mean = given[0] if given else kwargs.get("mean", 0.0)
            deviation = given[1] if len(given) > 1 else kwargs.get("std", 1.0)
            mean, deviation = (torch.as_tensor(value).detach() for value in (mean, deviation))
            z = (mean + deviation * noise).to(result.dtype)  # it trains neither: see torch.normal
            return result.copy_(z) if func is torch.Tensor.normal_ else z


def outputs(
    case: Case, drawn: Drawn, function: Callable, model: nn.Module | None, describe: Callable
) -> list[list[dict] | dict]:
    """Call a function as a case specifies.

    Args:
        case: the case
        drawn: its tensors
        function: the function
        model: the model, if the function is a method
        describe: function that describes an exception

    Returns:
        for each call, a dict of `error` and `kind` if it raises an error, else a list with a dict
        per repetition:
        `values`, `shapes`: the flattened terms and their shapes;
        `gradients`: the first term's gradients by argument; for a method, its derivatives along
        each network's direction, by network, and kl + rec's if the loss uses them;
        `noise`: sums of each term's derivatives w.r.t. the draws, of absolute values, of squares;
        `drawn`: the number of draws, and the number of rows if every draw is a row of z
    """
    found: list[list[dict] | dict] = []
    for call, args in zip(case.calls, drawn.args, strict=True):
        try:
            _set(model, drawn.weights, call)
            of_loss = case.function == "negative_elbo_bound" and hasattr(model, "beta")
            found.append(
                [
                    _output(call, i, args, drawn, function, model, of_loss)
                    for i in range(call.repeat)
                ]
            )
        except Exception as error:
            found.append({"error": describe(error), "kind": type(error).__name__})
    return found


def _set(model: Any, weights: dict[str, Tensor], call: Call) -> None:
    """Set the model's weights for a call."""
    if model is None:
        return
    parameters = dict(model.named_parameters())
    output, bias = weights[OUTPUT], weights[ENCODED].clone()
    bias[len(bias) // 2 :] += call.spread
    with torch.no_grad():
        parameters[OUTPUT].copy_(output * call.steep)
        parameters[ENCODED].copy_(bias)
    if hasattr(model, "beta"):
        model.beta = BETA


def _output(call: Call, i: int, args, drawn: Drawn, function, model, of_loss: bool) -> dict:
    differentiated = i < call.gradients
    args = [arg.clone() if isinstance(arg, Tensor) else arg for arg in args]
    leaves = [arg for arg in args if isinstance(arg, Tensor)]
    if differentiated and model is None:
        for leaf in leaves:
            leaf.requires_grad_(True)
    # torch.manual_seed takes 1 ms: it seeds all devices, and keeps a stack trace for idle ones.
    torch.default_generator.manual_seed(1000 + i)
    noise = None if call.noise is None else SetNoise(call.noise, call.rows)
    graph = torch.enable_grad() if differentiated or noise else torch.no_grad()
    with graph, noise or contextlib.nullcontext():
        result = function(*args)
    if result is None:
        raise TypeError(f"{function.__name__} returns None; return the result")
    terms = list(result) if isinstance(result, tuple | list) else [result]
    terms = [term if isinstance(term, Tensor) else torch.tensor(term) for term in terms]
    terms = terms[:MOST_TERMS]
    found: dict[str, Any] = {
        "values": [term.detach().double().flatten()[:MOST_VALUES].tolist() for term in terms],
        "shapes": [list(term.shape) for term in terms],
        "gradients": {},
    }
    if differentiated and model is None:
        for i, grad in enumerate(_derivatives(terms[0], leaves)):
            found["gradients"][str(i)] = grad.double().flatten()[:MOST_VALUES].tolist()
    elif differentiated:
        found["gradients"] = _along(terms[0], drawn.directions, model)
        if of_loss and [term.numel() for term in terms[1:]] == [1, 1]:
            loss = _along(terms[1] + terms[2], drawn.directions, model)
            found["gradients"] |= {f"kl + rec: {group}": along for group, along in loss.items()}
    if noise is not None:
        z_dim, draws = getattr(model, "z_dim", None), noise.draws
        in_rows = all(draw.dim() > 0 and draw.shape[-1] == z_dim for draw in draws)
        found["noise"] = [_by_noise(term, draws) for term in terms]
        found["drawn"] = [sum(draw.numel() for draw in draws), noise.count if in_rows else 0]
    return found


def _derivatives(term: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    """Differentiate a weighted sum of a term's elements, with different weights."""
    if not term.requires_grad or not inputs:
        return [torch.zeros_like(one) for one in inputs]
    weights = torch.linspace(0.5, 1.5, term.numel(), dtype=term.dtype).view(term.shape)
    total = (term * weights).sum() if term.numel() > 1 else term.sum()
    return list(torch.autograd.grad(total, inputs, retain_graph=True, materialize_grads=True))


def _along(term: Tensor, directions: dict[str, Tensor], model: nn.Module) -> dict[str, list[float]]:
    """Return derivatives along each network's direction."""
    own = {name: p for name, p in model.named_parameters() if name in directions}
    own = {name: parameter for name, parameter in own.items() if parameter.requires_grad}
    found: dict[str, float] = {}
    for name, grad in zip(own, _derivatives(term, list(own.values())), strict=True):
        group = name.partition(".")[0]
        along = torch.dot(grad.flatten().float(), directions[name].flatten()).item()
        found[group] = found.get(group, 0.0) + along
    return {group: [along] for group, along in found.items()}


def _by_noise(term: Tensor, draws: list[Tensor]) -> list[float]:
    """Sum a term's derivatives w.r.t. the draws, their absolute values and their squares."""
    grads = (grad.double().flatten() for grad in _derivatives(term, draws))
    one = torch.cat([torch.zeros(1), *grads])
    return [one.sum().item(), one.abs().sum().item(), one.square().sum().item()]


# Finding a submission's function: a broken file or package does not break other files


class Absent(Exception):
    """The function to call is missing."""


class StandIn(MagicMock):
    """A stand-in for a missing or broken module, or for one of its attributes."""

    __path__: list[str] = []
    __version__ = "0"

    def __call__(self, *args, **options):
        decorated = len(args) == 1 and callable(args[0]) and not options
        return args[0] if decorated else super().__call__(*args, **options)


class Modules(MetaPathFinder, Loader):
    """Imports the files of a submission, and stand-ins for packages that are not installed.

    A file that handles the ImportError itself gets no stand-in.

    Args:
        root: the folder of its files
        package: "codebase" or "submission"

    Attributes:
        broken: import errors, keyed by file
        missing: packages that are not installed
    """

    def __init__(self, root: str, package: str):
        self.root, self.package = root, package
        self.broken: dict[str, str] = {}
        self.missing: list[str] = []

    def install(self) -> None:
        """Install this finder for the process's imports."""
        execute = SourceFileLoader.exec_module

        def exec_module(loader, module):
            try:
                execute(loader, module)
            except BaseException as error:
                if not loader.path.startswith(self.root):
                    raise
                name = isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0]
                if name and name not in (self.package, *self.missing):
                    self.missing.append(name)
                    return exec_module(loader, module)  # with a stand-in
                file = os.path.relpath(loader.path, self.root)
                self.broken[file] = self.describe(error, file)
                module.__dict__.setdefault("__getattr__", instead)

        def instead(name):
            if name.startswith("__"):
                raise AttributeError(name)
            return StandIn()

        SourceFileLoader.exec_module = exec_module  # type: ignore[method-assign]
        sys.path.insert(0, self.root)
        sys.meta_path.append(self)
        for name in (*SLOW, "torch.utils.tensorboard"):
            spec = ModuleSpec(name, self, is_package=True)
            sys.modules[name] = importlib.util.module_from_spec(spec)

    def find_spec(self, name, path=None, target=None):
        """Find a stand-in for a slow package, or for a missing one."""
        known = name.partition(".")[0] in (*SLOW, *self.missing)
        return ModuleSpec(name, self, is_package=True) if known else None

    def create_module(self, spec):
        """Return a stand-in for a module."""
        return StandIn()

    def exec_module(self, module):
        """Do nothing: a stand-in has no code to run."""

    def describe(self, error: BaseException, file: str = "") -> str:
        """Return a description of an error, with the submission's line that raised it."""
        if isinstance(error, Absent):
            return str(error)
        lines = [
            f"{os.path.relpath(frame.filename, self.root)}:{frame.lineno}"
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename.startswith(self.root)
        ]
        version = ""
        if isinstance(error, SyntaxError) and error.filename:
            lines = [f"{os.path.relpath(error.filename, self.root)}:{error.lineno}"]
            version = f"; the grader runs Python {sys.version_info.major}.{sys.version_info.minor}"
        place = f" ({lines[-1]})" if lines else f" ({file})" if file else ""
        text = str(getattr(error, "msg", error) or error).replace(f"{self.root}/", "")
        first = (text.strip().splitlines() or [""])[0][:300]
        return f"{type(error).__name__}{place}" + (f": {first}" if first else "") + version


def find(case: Case, drawn: Drawn, modules: Modules) -> tuple[Callable, nn.Module | None]:
    """Find a case's function, or the bound method and its model with the case's weights.

    Args:
        case: the case
        drawn: its tensors
        modules: the submission

    Raises:
        Absent: the function is missing
        ValueError: the networks have other sizes than the homework's
    """
    name = f"{modules.package}.{case.file[:-3].replace('/', '.')}"
    if not os.path.exists(os.path.join(modules.root, modules.package, case.file)):
        raise Absent(f"there is no file {case.file}")
    # Some models can only be imported after utils.py, which imports them.
    owner = [importlib.import_module(one) for one in (f"{modules.package}.utils", name)][-1]
    torch.set_default_dtype(torch.float32)  # an import may have changed it; models are float32
    wanted = case.model or case.function
    found: Any = owner.__dict__.get(wanted)
    a_class = isinstance(found, type) and issubclass(found, nn.Module)
    if not (a_class if case.model else callable(found) and not isinstance(found, StandIn)):
        broken = modules.broken.get(f"{modules.package}/{case.file}")
        told = f"{case.file} cannot be imported: {broken}"
        raise Absent(told if broken else f"there is no {wanted} in {case.file}")
    if not case.model:
        return found, None
    model = found(**dict(case.constructor))
    own = dict(model.named_parameters())
    with torch.no_grad():
        for key, value in drawn.weights.items():
            if key not in own or own[key].shape != value.shape:
                shape = tuple(own[key].shape) if key in own else "none"
                raise ValueError(f"{key} has shape {shape}, expected {tuple(value.shape)}")
            own[key].copy_(value)
    if not callable(getattr(model, case.function, None)):
        raise Absent(f"there is no method {case.function} in the class {case.model}")
    return getattr(model, case.function), model


def calm() -> None:
    """Switch off threads and the compiler, so that a submission stays within its limits."""

    def compile(model=None, **options):
        return model if model is not None else lambda function: function

    torch.compile = compile
    for name in ("set_num_threads", "set_num_interop_threads"):
        setattr(torch, name, lambda count: None)


# Processes


def serve() -> None:
    """Run cases until the input ends.

    The arguments are the kind of sandbox; a user to become (0: none); the number of that user's
    processes; and a folder that the user must not be able to read.
    """
    kind, user, others, hidden = sys.argv[1:]
    gc.disable()
    _limit(kind, int(user), int(others))
    if hidden and os.access(hidden, os.X_OK):
        sys.exit(f"{hidden} can be read by every user: run chmod go-rwx on it")
    if not os.access(os.__file__, os.R_OK):
        sys.exit(f"another user cannot read Python in {sys.base_prefix}")
    torch.set_num_threads(1)
    gc.freeze()
    limits = list(map(resource.getrlimit, range(16)))
    _tell({"size": 0})
    while len(head := os.read(0, 8)) == 8:
        size, seconds = struct.unpack("<If", head)
        with tempfile.TemporaryFile(buffering=0) as answer:
            process = os.fork()
            if process == 0:
                try:
                    _child(size, answer)
                finally:
                    os._exit(1)
            how = _end(process, seconds, kind)
            if kind != "none":
                _empty()
            if limits != list(map(resource.getrlimit, range(16))):
                return  # which a submission has changed
            written = os.fstat(answer.fileno()).st_size
            how["size"] = written if written <= LARGEST_ANSWER else 0
            _tell(how | {"large": written > LARGEST_ANSWER})
            sent = 0
            while sent < how["size"]:
                sent += os.sendfile(1, answer.fileno(), sent, how["size"] - sent)


def _limit(kind: str, user: int, others: int) -> None:
    """Limit this process and what it starts; as root, also become another user."""
    for name, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_DATA, DATA),
        (resource.RLIMIT_FSIZE, FILE),
        (resource.RLIMIT_NOFILE, FILES),
    ):
        resource.setrlimit(name, (value, value))
    if user:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    if kind == "none":
        return
    resource.setrlimit(resource.RLIMIT_NPROC, (PROCESSES + others, PROCESSES + others))
    prctl = ctypes.CDLL(None).prctl
    prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE: what it forks cannot read or write its memory and files
    prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: orphans become its children
    prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS


def _child(size: int, answer: Any) -> None:
    """Read a message, call the function, and write what it returns; then end the process."""
    os.setsid()
    with open(0, "rb", closefd=False) as pipe:
        message = json.loads(pipe.read(size))
    case = Case.read(message["case"])
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(null, descriptor)
    printed = io.BytesIO()
    # `kept`, because a stream without references would close `printed`.
    kept = sys.stdout = sys.stderr = io.TextIOWrapper(printed, "utf-8", "replace")
    _limit_case(case.seconds)
    calm()
    random.seed(case.seed)
    numpy.random.seed(case.seed % (1 << 32))
    root = tempfile.mkdtemp()
    modules = Modules(root, message["package"])
    for file, source in message["sources"].items():
        path = os.path.join(root, file)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8", errors="surrogatepass") as stream:
            stream.write(source)
    try:
        modules.install()
        drawn = draw(case)
        function, model = find(case, drawn, modules)
        result: dict[str, Any] = {"calls": outputs(case, drawn, function, model, modules.describe)}
    except BaseException as error:
        result = {"error": modules.describe(error), "kind": type(error).__name__}
    result |= {"broken": modules.broken, "missing": modules.missing}
    with contextlib.suppress(ValueError):  # a stream that was closed
        kept.flush()
        result["printed"] = printed.getvalue()[:PRINTED].decode(errors="replace")
    shutil.rmtree(root, ignore_errors=True)
    answer.write(json.dumps(result).encode())
    os._exit(0)


def _limit_case(seconds: float) -> None:
    """Limit a case's CPU time and its mapped memory; only this limit counts shared memory."""
    whole = math.ceil(seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (whole, whole + 1))
    with open("/proc/self/statm", encoding="ascii") as file:
        size = int(file.read().split()[0]) * resource.getpagesize() + ADDRESSES
    resource.setrlimit(resource.RLIMIT_AS, (size, size))


def _end(process: int, seconds: float, kind: str) -> dict:
    """Wait for a case's process, end it with all that it has started, and say how it ended."""
    deadline, how = time.monotonic() + seconds, os.WEXITED | os.WNOHANG | os.WNOWAIT
    grader = select.poll()
    grader.register(0, 0)  # it hangs up when it ends
    while not (ended := os.waitid(os.P_PID, process, how)) and time.monotonic() < deadline:
        if grader.poll(2):  # milliseconds
            break
    status, cpu = 0, 0.0
    while True:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if kind == "none":
                os.killpg(process, signal.SIGKILL)
            else:
                os.kill(-1, signal.SIGKILL)  # all of this user, or of this namespace
        try:
            found, code, used = os.wait4(-1, 0)
        except ChildProcessError:
            return {"status": status, "late": not ended, "cpu": cpu}
        cpu += used.ru_utime + used.ru_stime
        status = os.waitstatus_to_exitcode(code) if found == process else status


def _empty() -> None:
    """Delete what a case has left behind. An error ends this process, so the case has no output."""
    quiet: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    for place in filter(os.path.isdir, PLACES):
        entries = list(os.scandir(place))
        own = [e.path for e in entries if e.stat(follow_symlinks=False).st_uid == os.geteuid()]
        if own:  # these programs take folders of any depth
            subprocess.run(["chmod", "-R", "u+rwx", "--", *own], **quiet)
            subprocess.run(["rm", "-rf", "--", *own], **quiet, check=True)


def _tell(message: dict) -> None:
    """Write a line about a case, or this process, to the grader."""
    os.write(1, json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    serve()
