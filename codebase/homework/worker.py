"""The process in which submissions run: it gets questions and gives numbers, and knows no answers.

It is started inside the sandbox, imports torch once, and forks a process for each question. What a
student's function returns goes out as numbers, never as pickles; what is right is decided outside.
This file stands alone: it imports nothing of the project, and is imported by the grader for `draw`.
"""

import contextlib
import ctypes
import importlib.abc
import importlib.machinery
import importlib.util
import io
import json
import linecache
import os
import resource
import select
import signal
import struct
import sys
import tempfile
import time
import traceback
import types

MEGABYTE = 1 << 20
OWN = (lambda: None).__code__.co_filename  # this file, also where it came as text
LIMITS = {  # of the sandbox's processes, unless a question has other ones
    "data": 2000 * MEGABYTE,
    "file": 32 * MEGABYTE,
    "files": 64,  # open at once
    "processes": 6,
    "mapped": 1500 * MEGABYTE,  # address space of a question's process, beyond what it begins with
    "output": 4 * MEGABYTE,  # of an answer
    "printed": 20_000,  # bytes of what a submission prints that are kept
}
OURS = ("utils", "likelihoods", "v1", "v2")  # modules of this project, for its helpers
MOST_VALUES = 4096  # of a tensor that are sent
STAND_INS = (  # packages that graded functions do not need, and that take long to import
    *("torchvision", "tensorboardX", "tensorboard", "tensorflow", "matplotlib", "pandas"),
    *("IPython", "scipy", "sklearn", "PIL", "cv2", "wandb"),
)


# Questions: inputs and weights, the same in this process and in the grader


def draw(torch, question: dict) -> dict:
    """The tensors of a question, from its seed: `args` of its calls, `weights`, `directions`."""
    generator = torch.Generator().manual_seed(question["seed"])

    def tensor(spec):
        if not isinstance(spec, dict):
            return spec
        dtype = getattr(torch, spec.get("dtype", question["dtype"]))
        kind, shape = spec["kind"], spec["shape"]
        if kind == "normal":
            value = torch.randn(shape, generator=generator, dtype=torch.float64)
        elif kind == "positive":
            normal = torch.randn(shape, generator=generator, dtype=torch.float64)
            value = normal.exp()
        elif kind == "binary":
            value = (torch.rand(shape, generator=generator) < 0.15).double()  # as in MNIST
        elif kind == "uniform":
            value = torch.rand(shape, generator=generator, dtype=torch.float64)
        else:  # one-hot labels
            index = torch.randint(0, shape[-1], shape[:-1], generator=generator)
            value = torch.nn.functional.one_hot(index, shape[-1]).double()
        value = value * spec.get("scale", 1) + spec.get("shift", 0)
        return value.to(dtype)

    calls = [[tensor(spec) for spec in call["args"]] for call in question["calls"]]
    weights, directions = {}, {}
    for name, (shape, scale) in question.get("weights", {}).items():
        weights[name] = (torch.randn(shape, generator=generator) * scale).to(torch.float32)
        directions[name] = torch.randn(shape, generator=generator) / shape[-1] ** 0.5
        if name == "enc.net.4.bias" and question.get("calm"):
            weights[name][shape[0] // 2 :] -= 6  # variances of 0.002
    return {"args": calls, "weights": weights, "directions": directions}


def ask(torch, question: dict, drawn: dict, function, model=None) -> list[list[dict]]:
    """Call a function as a question says.

    Returns:
        for each call, for each of its repetitions: `values`, the terms flattened; `shapes`; and
        `gradients`: of a model, the slope of the first term along each network's direction; of a
        function, of its arguments
    """
    return [
        [
            once(
                torch,
                {"seed": call["seed"] + i, "gradient": i < call.get("gradients", 0)},
                args,
                drawn["directions"],
                function,
                model,
            )
            for i in range(call.get("repeat", 1))
        ]
        for call, args in zip(question["calls"], drawn["args"], strict=True)
    ]


def once(torch, call: dict, args: list, directions: dict, function, model) -> dict:
    """Call a function once."""
    args = [arg.clone() if isinstance(arg, torch.Tensor) else arg for arg in args]
    wanted = call["gradient"]
    leaves = [arg for arg in args if isinstance(arg, torch.Tensor) and arg.is_floating_point()]
    if wanted and model is None:
        for leaf in leaves:
            leaf.requires_grad_(True)
    # torch.manual_seed, of all devices, takes 1 ms: it keeps the stack for those that sleep.
    torch.default_generator.manual_seed(call["seed"])
    with contextlib.nullcontext() if wanted else torch.no_grad():
        result = function(*args)
    terms = list(result) if isinstance(result, tuple | list) else [result]
    terms = [term if isinstance(term, torch.Tensor) else torch.tensor(term) for term in terms]
    answer = {
        "values": [t.detach().double().flatten()[:MOST_VALUES].tolist() for t in terms[:8]],
        "shapes": [list(t.shape) for t in terms[:8]],
    }
    if wanted:
        answer["gradients"] = slopes(torch, terms[0], leaves, directions, model)
    return answer


def slopes(torch, term, leaves: list, directions: dict, model) -> dict:
    """Gradients of a term, as numbers; None for what it does not depend on."""
    if not term.requires_grad:
        return {}
    if model is None:
        weights = torch.linspace(0.5, 1.5, term.numel(), dtype=term.dtype).view(term.shape)
        grads = torch.autograd.grad((term * weights).sum(), leaves, allow_unused=True)
        return {
            str(i): None if grad is None else grad.double().flatten()[:MOST_VALUES].tolist()
            for i, grad in enumerate(grads)
        }
    parameters = dict(model.named_parameters())
    names = [name for name in directions if name in parameters and parameters[name].requires_grad]
    grads = torch.autograd.grad(
        term.mean(), [parameters[name] for name in names], allow_unused=True
    )
    found = {}
    for name, grad in zip(names, grads, strict=True):
        group = name.partition(".")[0]
        if grad is not None:
            slope = torch.dot(grad.flatten().to(torch.float32), directions[name].flatten()).item()
            found[group] = found.get(group, 0.0) + slope
    return found


# A submission's modules, in memory


class Modules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports a submission's files, so that one broken file breaks nothing else.

    Args:
        package: "codebase" or "submission"
        sources: contents by paths below the package's parent, such as codebase/utils.py
        root: folder that has them as files, for code that looks for its neighbours
    """

    def __init__(self, package: str, sources: dict[str, str], root: str):
        self.package, self.sources, self.root = package, sources, root
        self.broken = {}  # module: what its import raised
        self.missing = []  # packages that are not here
        self.replaced = {}  # by id: a function of the submission, and this project's

    def find_spec(self, name, path=None, target=None):
        root = name.partition(".")[0]
        if root != self.package:
            missing = root in STAND_INS or name.startswith("torch.utils.tensorboard")
            return self._stand_in(name) if missing and self.asks() else None
        stem = name.replace(".", "/")
        for file in (f"{stem}/__init__.py", f"{stem}.py"):
            if file in self.sources:
                is_package = file.endswith("__init__.py")
                spec = importlib.machinery.ModuleSpec(
                    name, self, origin=file, is_package=is_package
                )
                if is_package:
                    spec.submodule_search_locations = [f"{self.root}/{stem}"]
                return spec
        if any(file.startswith(stem + "/") for file in self.sources):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def asks(self) -> bool:
        """Whether the import under way is one of the submission's own, not a library's."""
        frame = sys._getframe(1)
        while frame is not None:
            file = frame.f_code.co_filename
            if "importlib" not in file and file != OWN:
                return file in self.sources
            frame = frame.f_back
        return False

    def _stand_in(self, name):
        root = name.partition(".")[0]
        if root not in self.missing:
            self.missing.append(root)
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        inside = spec.name.partition(".")[0] == self.package
        return None if inside else StandIn(spec.name)

    def exec_module(self, module):
        file = module.__spec__.origin
        if file is None or isinstance(module, StandIn):
            return
        module.__file__ = f"{self.root}/{file}"
        try:
            source = self.sources[file]
            lines = source.splitlines(keepends=True)
            linecache.cache[file] = (len(source), None, lines, file)  # for torch.jit.script
            exec(compile(source, file, "exec"), module.__dict__)
        except BaseException as error:
            self.broken[module.__name__] = describe(error, file)
            module.__dict__.setdefault("__getattr__", self._instead_of(module.__name__))

    def _instead_of(self, name):
        def missing(attribute):
            if attribute.startswith("__"):
                raise AttributeError(attribute)
            return StandIn(f"{name}.{attribute}")

        return missing


class Missing(importlib.abc.MetaPathFinder):
    """The last finder: stands in for packages that a submission imports and nobody has."""

    def __init__(self, modules: Modules):
        self.modules = modules

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == self.modules.package or not self.modules.asks():
            return None
        return self.modules._stand_in(name)


class StandIn(types.ModuleType):
    """Something that is not here: its attributes, and what its calls return, are not either."""

    def __getattr__(self, name):
        if name.startswith("__") and name.endswith("__"):
            if name == "__path__":
                return []
            if name == "__version__":
                return "0"
            raise AttributeError(name)
        return StandIn(f"{self.__name__}.{name}")

    def __call__(self, *args, **options):
        if len(args) == 1 and callable(args[0]) and not options:
            return args[0]  # perhaps a decorator
        return self

    def __iter__(self):
        return iter(())

    def __len__(self):
        return 0

    def __bool__(self):
        return False

    def __getitem__(self, key):
        return self

    def __setitem__(self, key, value):
        pass

    def __or__(self, other):
        return self

    __ror__ = __or__

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def __mro_entries__(self, bases):
        return (object,)


class Absent(Exception):
    """What is to be asked is not there."""


def describe(error: BaseException, file: str = "") -> str:
    """What was raised, and at which line of the submission, without this program's own lines."""
    lines = [
        f"{frame.filename}:{frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(("/", "<"))
    ]
    if isinstance(error, SyntaxError) and error.filename:
        lines = [f"{error.filename}:{error.lineno}"]
    place = f" ({lines[-1]})" if lines else f" ({file})" if file else ""
    if isinstance(error, Absent):
        return str(error)
    text = str(getattr(error, "msg", error) or error).strip().splitlines()
    return f"{type(error).__name__}{place}" + (f": {text[0][:300]}" if text else "")


# A question, answered in a process of its own


def answer(question: dict, drawn: dict, modules: Modules) -> dict:
    """What a submission's function returns, or why it returns nothing."""
    import torch

    ours = our_helpers(question["helpers"]) if question["helpers"] else None
    sys.meta_path[:] = [modules, *sys.meta_path, Missing(modules)]
    name = f"{modules.package}.utils"
    utils = importlib.import_module(name) if _file(name) in modules.sources else None
    if ours is not None:
        utils = replace_helpers(modules, utils, ours, question["helpers"]["names"])
    if question["model"]:
        function, model = method_of(torch, question, modules, drawn, ours)
    else:
        function, model = getattr(utils, question["method"], None), None
        if not callable(function) or isinstance(function, StandIn):
            why = modules.broken.get(name, f"there is no function {question['method']} in utils.py")
            raise Absent(why)
    return {"calls": ask(torch, question, drawn, function, model)}


def _file(name: str) -> str:
    return name.replace(".", "/") + ".py"


def our_helpers(helpers: dict) -> types.SimpleNamespace:
    """This project's helpers from their sources: utils without what is asked for, and networks."""
    modules = {name: types.ModuleType(name) for name in OURS}
    modules["v1"].ut = modules["likelihoods"].ut = modules["utils"]
    modules["v2"].v1 = modules["v1"]
    for name, module in modules.items():
        exec(compile(helpers[name], f"/{name}.py", "exec"), module.__dict__)
    return types.SimpleNamespace(**modules)


def replace_helpers(modules: Modules, utils, ours, names: list[str]):
    """Put this project's helpers in the place of the submission's, wherever it looks for them."""
    if utils is None:
        utils = types.ModuleType(f"{modules.package}.utils")
        sys.modules[utils.__name__] = utils
    for name in names:
        theirs = utils.__dict__.get(name)
        if theirs is not None:
            modules.replaced[id(theirs)] = (theirs, getattr(ours.utils, name))
        setattr(utils, name, getattr(ours.utils, name))
    return utils


def method_of(torch, question: dict, modules: Modules, drawn: dict, ours):
    """A bound method of the submission's model, with the question's weights; and the model."""
    name = f"{modules.package}.{question['file'][:-3].replace('/', '.')}"
    if _file(name) not in modules.sources:
        raise Absent(f"there is no file {question['file']}")
    module = importlib.import_module(name)
    kind = module.__dict__.get(question["model"])
    if not isinstance(kind, type):
        why = f"there is no class {question['model']} in {question['file']}"
        raise Absent(modules.broken.get(name, why))
    if ours is not None:
        for module in [m for n, m in sys.modules.items() if n.startswith(modules.package)]:
            for key, value in list(module.__dict__.items()):  # from codebase.utils import ...
                if id(value) in modules.replaced:
                    setattr(module, key, modules.replaced[id(value)][1])
    if ours is None or not question["helpers"]["furnish"]:
        model = kind(**question["constructor"])
    else:
        model = kind.__new__(kind)
        furnish(torch, model, question, ours)
    own = dict(model.named_parameters())
    with torch.no_grad():
        for key, value in drawn["weights"].items():
            if key not in own or own[key].shape != value.shape:
                found = tuple(own[key].shape) if key in own else "nothing"
                raise Absent(f"the model's {key} is {found}, not {tuple(value.shape)}")
            own[key].copy_(value)
    return getattr(model, question["method"]), model


def furnish(torch, model, question: dict, ours) -> None:
    """Give a model that was not constructed the parts that the homework's constructors give it."""
    torch.nn.Module.__init__(model)
    kind, options = question["model"], question["constructor"]
    z_dim = {"SSVAE": 64, "FSVAE": 10}.get(kind, options.get("z_dim"))
    y_dim = 10 if kind in ("SSVAE", "FSVAE") else 0
    nets = ours.v2 if kind == "FSVAE" else ours.v1
    model.likelihood = ours.likelihoods.BERNOULLI
    if kind == "FSVAE":
        model.likelihood = ours.likelihoods.Gaussian(0.1)
    model.name, model.z_dim, model.y_dim = kind.lower(), z_dim, y_dim
    model.k, model.gen_weight, model.class_weight = options.get("k"), 1, 100
    model.enc, model.dec = nets.Encoder(z_dim, y_dim), nets.Decoder(z_dim, y_dim)
    if kind == "SSVAE":
        model.cls = nets.Classifier(y_dim)
    constant = {"requires_grad": False}
    if kind == "GMVAE":
        model.z_pre = torch.nn.Parameter(torch.zeros(1, 2 * model.k, z_dim))
        model.pi = torch.nn.Parameter(torch.ones(model.k) / model.k, **constant)
        return
    model.z_prior_m = torch.nn.Parameter(torch.zeros(1), **constant)
    model.z_prior_v = torch.nn.Parameter(torch.ones(1), **constant)
    if not isinstance(getattr(type(model), "z_prior", None), property):
        model.z_prior = (model.z_prior_m, model.z_prior_v)


def child(question: dict, drawn: dict, modules: Modules, output: int) -> None:
    """In a process of its own: answer, and write the answer to a pipe."""
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    file, null = tempfile.TemporaryFile(), os.open(os.devnull, os.O_RDONLY)
    printed = file.fileno()
    os.dup2(null, 0)
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    sys.stdin = open(0, closefd=False, encoding="utf-8")
    sys.stdout = sys.stderr = open(
        1, "w", errors="replace", closefd=False, buffering=1, encoding="utf-8"
    )
    limit_mapped()
    forbid()
    try:
        result = answer(question, drawn, modules)
    except BaseException as error:
        result = {"error": describe(error), "kind": type(error).__name__}
    result |= {"broken": modules.broken, "missing": modules.missing}
    content = json.dumps(result).encode()
    with contextlib.suppress(BaseException):
        sys.stdout.flush()
        size = os.lseek(printed, 0, os.SEEK_END)
        keep = LIMITS["printed"]
        text = os.pread(printed, keep, 0).decode(errors="replace")
        result["printed"] = text + ("\n…" if size > keep else "")
        content = json.dumps(result).encode()
    view = memoryview(content)
    while view:
        view = view[os.write(output, view) :]
    os._exit(0)


# The loop of the worker


def serve() -> None:
    """Attend to submissions: messages on standard input, answers on standard output.

    A sandbox of namespaces is one for many submissions, one after another, so that torch is
    imported once: each gets namespaces of its own, and nothing of it is left when it has ended.
    """
    stdin, stdout = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    import gc

    gc.disable()
    root = os.environ.get("GRADER_ROOT")
    try:
        if not root:
            limit()
        import numpy  # noqa: F401  so that forked processes have them

        if "--check" in sys.argv:
            ready = bool(importlib.util.find_spec("torch"))
        else:
            import torch

            torch.set_num_threads(1)
            ready = True
    except Exception as error:
        return send(stdout, {"error": describe(error)})
    gc.freeze()
    if root:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        end_with_parent(signal.SIGTERM)
    try:
        send(stdout, {"ready": ready})
        while receive(stdin) is not None:  # there is a submission; only its process reads it
            if not root:
                return attend(stdin, stdout)
            if not in_namespaces(lambda: attend(stdin, stdout)):
                return  # perhaps in the middle of an answer
            send(stdout, {"ended": True})
    finally:
        if root:
            os.rmdir(root)


def in_namespaces(act) -> bool:
    """Do something in a process with namespaces of its own; whether that ended well.

    When this returns, no process is left of those that were started there.
    """
    outer = os.fork()
    if outer == 0:
        status = 1
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            end_with_parent(signal.SIGKILL)
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.unshare(NAMESPACES):
                raise OSError(ctypes.get_errno(), "unshare")
            inner = os.fork()  # the first process of the new namespace: all others end with it
            if inner == 0:
                act()
                status = 0
            else:
                status = os.waitpid(inner, 0)[1]
        finally:
            os._exit(1 if status else 0)
    return os.waitpid(outer, 0)[1] == 0


def attend(stdin: int, stdout: int) -> None:
    """Read a submission, and answer the questions about it until another message, or none, comes.

    Memory of the server's own is that of all later submissions, too: nothing of this one may be
    there.
    """
    try:
        if os.environ.get("GRADER_ROOT"):
            limit()
            os.stat(sys.modules["numpy"].__file__)  # Python's libraries are seen there
    except Exception as error:
        send(stdout, {"error": describe(error)})
        raise
    hello, root = receive(stdin), tempfile.mkdtemp()
    for file, source in hello["sources"].items():
        path = os.path.join(root, file)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8", errors="surrogatepass") as stream:
            stream.write(source)
    modules = Modules(hello["package"], hello["sources"], root)
    send(stdout, {"files": len(hello["sources"])})
    drawn = {}  # here, for the same question with other helpers has the same draws
    while "calls" in (question := receive(stdin) or {}):
        key = json.dumps(question | {"helpers": None})
        if key not in drawn:
            drawn = dict(list(drawn.items())[-3:]) | {key: draw(sys.modules["torch"], question)}
        read, write = os.pipe()
        process = os.fork()
        if process == 0:
            os.close(read)
            os.close(stdin)
            os.close(stdout)
            try:
                child(question, drawn[key], modules, write)
            finally:
                os._exit(1)
        os.close(write)
        send(stdout, collect(read, process, question["seconds"]))
        os.close(read)


def collect(read: int, process: int, seconds: float) -> dict:
    """The answer of a forked process, or how it ended; it does not outlive this."""
    content, deadline = bytearray(), time.monotonic() + seconds
    ended = None
    while ended is None:
        left = deadline - time.monotonic()
        if left <= 0:
            ended = f"none came within {seconds:g} seconds"
        elif len(content) > LIMITS["output"]:
            ended = "an answer of more than 4 MB"
        elif select.select([read], [], [], left)[0]:
            piece = os.read(read, 1 << 16)
            if not piece:
                break
            content += piece
    status = end(process)
    if ended is None:
        try:
            answer = json.loads(bytes(content))
            if isinstance(answer, dict):
                return answer
        except (ValueError, RecursionError):
            pass
        if os.WIFSIGNALED(status):
            ended = f"the process ended by {signal.Signals(os.WTERMSIG(status)).name}"
        else:
            ended = f"the process ended with exit status {os.WEXITSTATUS(status)}"
    return {"error": ended, "kind": "Ended"}


def end(process: int) -> int:
    """End a process and all that it has started; returns its status.

    What it started becomes a child of this process when it ends, however it hid (see `limit`).
    """
    status = None
    while True:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.environ.get("GRADER_OWN_PIDS"):
                os.kill(-1, signal.SIGKILL)  # all there are in this namespace of processes
            else:
                os.killpg(process, signal.SIGKILL)
        for child in children():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(child, signal.SIGKILL)
        try:
            ended, found = os.waitpid(-1, 0)
        except ChildProcessError:
            return status
        status = found if ended == process else status


def children() -> list[int]:
    """The processes that this one has to wait for."""
    with (
        contextlib.suppress(OSError),
        open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file,
    ):
        return [int(word) for word in file.read().split()]
    return []


def limit() -> None:
    """Limits that no process of the sandbox can raise, and another user where that is root."""
    user = int(os.environ.get("GRADER_USER", "0"))
    for name, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_DATA, LIMITS["data"]),
        (resource.RLIMIT_FSIZE, LIMITS["file"]),
        (resource.RLIMIT_NOFILE, LIMITS["files"]),
    ):
        resource.setrlimit(name, (value, value))
    if os.environ.get("GRADER_ROOT"):
        change_root(os.environ["GRADER_ROOT"], **json.loads(os.environ["GRADER_FOLDERS"]))
    if user and os.geteuid() == 0:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    if os.geteuid() != 0 and os.environ.get("GRADER_PROCESSES"):
        count = int(os.environ["GRADER_PROCESSES"])
        resource.setrlimit(resource.RLIMIT_NPROC, (count, count))
    with contextlib.suppress(OSError, AttributeError):
        end_with_parent(signal.SIGKILL)
        libc = ctypes.CDLL(None)
        libc.prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE: what it forks cannot write to its memory
        libc.prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: orphans become its children
        libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS


def end_with_parent(number: int) -> None:
    """Get a signal when the parent ends; a change of the user undoes this."""
    ctypes.CDLL(None).prctl(1, number)  # PR_SET_PDEATHSIG


def limit_mapped() -> None:
    """Limit what a process may map: memory that is shared counts nowhere else."""
    with (
        contextlib.suppress(OSError, ValueError),
        open("/proc/self/statm", encoding="ascii") as file,
    ):
        size = int(file.read().split()[0]) * resource.getpagesize() + LIMITS["mapped"]
        resource.setrlimit(resource.RLIMIT_AS, (size, size))


# System calls that no submission needs: sockets, memory that no limit counts, other processes.
FORBIDDEN = (
    *("socket", "memfd_create", "memfd_secret", "shmget", "semget", "msgget", "mq_open", "add_key"),
    *("request_key", "keyctl", "ptrace", "process_vm_readv", "process_vm_writev", "kill", "tkill"),
    *("tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_send_signal", "pidfd_getfd", "bpf"),
    *("io_uring_setup", "userfaultfd", "perf_event_open", "unshare", "setns"),
)
NUMBERS = {  # by machine: its own in seccomp's filters, and those of FORBIDDEN
    "x86_64": (
        0xC000003E,
        *(41, 319, 447, 29, 64, 68, 240, 248, 249, 250, 101, 310, 311, 62, 200, 234, 129, 297),
        *(424, 438, 321, 425, 323, 298, 272, 308),
    ),
    "aarch64": (
        0xC00000B7,
        *(198, 279, 447, 194, 190, 186, 180, 217, 218, 219, 117, 270, 271, 129, 130, 131, 138, 240),
        *(424, 438, 280, 425, 282, 241, 97, 268),
    ),
}


CLONES = {"x86_64": (56, 435), "aarch64": (220, 435)}  # clone, clone3
NEW = 0x7E020000  # clone's flags for namespaces of one's own, among them one's own root


def forbid() -> None:
    """Refuse FORBIDDEN from now on, by Linux's seccomp; elsewhere, nothing is refused."""
    machine = os.uname().machine
    if sys.platform != "linux" or machine not in NUMBERS:
        return
    architecture, *numbers = NUMBERS[machine]
    clone, clone3 = CLONES[machine]
    load, equal, at_least, any_bit, give = 0x20, 0x15, 0x35, 0x45, 0x06  # of BPF
    lines = [  # what to do, with what number, where to go on if it holds, and where if not
        (load, 4, "", ""),  # the machine
        (equal, architecture, "", "refuse"),
        (load, 0, "", ""),  # the call's number
        (at_least, 0x40000000, "refuse", ""),  # x86's other numbering
        *((equal, number, "refuse", "") for number in numbers),
        (equal, clone3, "absent", ""),  # its flags cannot be seen; libraries then take clone
        (equal, clone, "", "allow"),
        (load, 16, "", ""),  # its flags
        (any_bit, NEW, "refuse", "allow"),
    ]
    places = {"": 0, "refuse": len(lines), "absent": len(lines) + 1, "allow": len(lines) + 2}
    code = b"".join(
        struct.pack("<HBBI", what, *(places[to] and places[to] - i - 1 for to in (yes, no)), number)
        for i, (what, number, yes, no) in enumerate(lines)
    )
    for verdict in (0x00050001, 0x00050026, 0x7FFF0000):  # EPERM, ENOSYS, go on
        code += struct.pack("<HBBI", give, 0, 0, verdict)
    buffer = ctypes.create_string_buffer(code)
    program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer))
    ctypes.CDLL(None).prctl(22, 2, ctypes.c_char_p(program), 0, 0)  # PR_SET_SECCOMP, a filter


# CLONE_NEWNS, NEWPID, NEWNET, NEWIPC and NEWUTS: of files, processes, network, queues, names.
NAMESPACES = 0x00020000 | 0x20000000 | 0x40000000 | 0x08000000 | 0x04000000


def change_root(root: str, seen: list[str], hidden: list[str]) -> None:
    """In a namespace of files of its own: see some folders, without writing to them, and no more.

    Args:
        root: an empty folder, which becomes the root
        seen: folders and links
        hidden: folders below those
    """
    libc = ctypes.CDLL(None, use_errno=True)
    private, recursive, bind, again, read_only = 1 << 18, 1 << 14, 1 << 12, 1 << 5, 1

    def mount(source, target, kind, flags, options=""):
        words = [word.encode() for word in (source, target, kind)]
        if libc.mount(*words, ctypes.c_ulong(flags), options.encode()):
            raise OSError(ctypes.get_errno(), "mount", target)

    mount("none", "/", "", private | recursive)
    mount("tmpfs", root, "tmpfs", 0, "mode=755,size=1m")
    for folder, kind, options in (  # before the others, of which some may lie in /tmp
        ("/tmp", "tmpfs", f"mode=1777,size={LIMITS['file']}"),
        ("/dev/shm", "tmpfs", f"mode=1777,size={LIMITS['file']}"),
        ("/proc", "proc", ""),
    ):
        os.makedirs(root + folder, 0o755, exist_ok=True)
        mount(kind, root + folder, kind, 0, options)
    devices = ["/dev/null", "/dev/zero", "/dev/urandom", "/dev/random"]
    for folder in [*seen, *devices]:
        inside = root + folder
        os.makedirs(os.path.dirname(inside), 0o755, exist_ok=True)
        if os.path.islink(folder):
            os.symlink(os.readlink(folder), inside)
            continue
        if os.path.isdir(folder):
            os.makedirs(inside, 0o755, exist_ok=True)
        else:
            os.close(os.open(inside, os.O_CREAT | os.O_WRONLY, 0o644))
        mount(folder, inside, "", bind | recursive)
        if folder not in devices:
            mount("none", inside, "", bind | again | read_only)
    for folder in hidden:
        mount("tmpfs", root + folder, "tmpfs", read_only, "mode=755,size=4k")
    mount("tmpfs", root, "tmpfs", read_only | again, "mode=755,size=1m")
    os.chroot(root)
    os.chdir("/tmp")


def send(descriptor: int, message: dict) -> None:
    """Write a message: its length, then JSON."""
    content = json.dumps(message).encode()
    view = memoryview(struct.pack("<I", len(content)) + content)
    while view:
        view = view[os.write(descriptor, view) :]


def receive(descriptor: int) -> dict | None:
    """Read a message; None where the other side has closed."""
    head = _read(descriptor, 4)
    if head is None:
        return None
    content = _read(descriptor, struct.unpack("<I", head)[0])
    return None if content is None else json.loads(content)


def _read(descriptor: int, size: int) -> bytes | None:
    content = io.BytesIO()
    while content.tell() < size:
        piece = os.read(descriptor, min(size - content.tell(), 1 << 16))
        if not piece:
            return None
        content.write(piece)
    return content.getvalue()


if __name__ == "__main__":
    serve()
