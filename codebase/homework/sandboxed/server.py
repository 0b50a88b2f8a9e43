"""The sandbox's first process: it imports torch once, and forks a process for each test case.

Messages are JSON, on standard input and output: first the submission, then cases. What a function
returns leaves as numbers, never as pickles.
"""

import contextlib
import gc
import importlib.util
import io
import json
import os
import select
import signal
import struct
import sys
import tempfile
import time

from .importing import Missing, Modules, describe
from .limits import LIMITS, forbid, limit, limit_case

WAITING = 3  # a case's wall time may be so many times its CPU time: busy machine, sleep


def serve() -> None:
    """Read a submission, and call its functions until no more cases come."""
    stdin, stdout = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    gc.disable()
    try:
        limit()
        import numpy  # noqa: F401  so that forked processes have it

        if "--check" in sys.argv:
            return send(stdout, {"ready": bool(importlib.util.find_spec("torch"))})
        import torch

        torch.set_num_threads(1)
    except Exception as error:
        return send(stdout, {"error": describe(error)})
    gc.freeze()
    send(stdout, {"ready": True})
    submission = receive(stdin)
    if submission is not None:
        _attend(stdin, stdout, submission)


def _attend(stdin: int, stdout: int, submission: dict) -> None:
    from . import calling, functions

    root = tempfile.mkdtemp()
    for file, source in submission["sources"].items():
        path = os.path.join(root, file)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8", errors="surrogatepass") as stream:
            stream.write(source)
    modules = Modules(submission["package"], submission["sources"], root)
    send(stdout, {"files": len(submission["sources"])})
    drawn = {}  # kept: the same case with other helpers has the same tensors
    while (message := receive(stdin)) is not None:
        case, key = calling.Case.read(message["case"]), json.dumps(message["case"])
        helpers = message["helpers"] and functions.Helpers(**message["helpers"])
        if key not in drawn:
            drawn = dict(list(drawn.items())[-3:]) | {key: calling.draw(case)}
        read, write = os.pipe()
        process = os.fork()
        if process == 0:
            os.close(read)
            os.close(stdin)
            os.close(stdout)
            try:
                _child(case, drawn[key], modules, helpers, write)
            finally:
                os._exit(1)
        os.close(write)
        send(stdout, _collect(read, process, case.seconds))
        os.close(read)


def _child(case, drawn, modules: Modules, helpers, output: int) -> None:
    """In a process of its own: call the function, and write what it returns to a pipe."""
    import random

    import numpy

    from . import calling, functions

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
    limit_case(case.seconds)
    forbid()
    functions.calm()
    random.seed(case.seed)
    numpy.random.seed(case.seed % (1 << 32))
    try:
        sys.meta_path[:] = [modules, *sys.meta_path, Missing(modules)]
        function, model = functions.find(case, drawn, modules, helpers)
        result = {"calls": calling.outputs(case, drawn, function, model)}
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


def _collect(read: int, process: int, seconds: float) -> dict:
    """What a forked process writes, or how it ended; it does not outlive this."""
    content, deadline = bytearray(), time.monotonic() + WAITING * seconds
    ended = None
    while ended is None:
        left = deadline - time.monotonic()
        if left <= 0:
            ended = f"it did not end within {WAITING * seconds:g} seconds"
        elif len(content) > LIMITS["output"]:
            ended = "its output is larger than 4 MB"
        elif select.select([read], [], [], left)[0]:
            piece = os.read(read, 1 << 16)
            if not piece:
                break
            content += piece
    status, used = _end(process)
    if ended is None:
        try:
            output = json.loads(bytes(content))
            if isinstance(output, dict):
                return output | {"cpu": used}
        except (ValueError, RecursionError):
            pass
        if not os.WIFSIGNALED(status):
            ended = f"its process ended with exit status {os.WEXITSTATUS(status)}"
        elif used >= 0.9 * seconds:
            ended = f"it used {seconds:g} seconds of CPU time, perhaps in an endless loop"
        else:
            ended = f"its process ended with {signal.Signals(os.WTERMSIG(status)).name}"
    return {"error": ended, "kind": "Ended", "cpu": used}


def _end(process: int) -> tuple[int, float]:
    """End a process and all that it has started; returns its status, and the CPU time of all.

    When the process ends, what it started becomes a child of this process (see `limit`), even if it
    hid.
    """
    status, seconds = 0, 0.0
    while True:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.environ.get("GRADER_OWN_PIDS"):
                os.kill(-1, signal.SIGKILL)  # all there are in this namespace of processes
            else:
                os.killpg(process, signal.SIGKILL)
        for child in _children():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(child, signal.SIGKILL)
        try:
            ended, found, used = os.wait4(-1, 0)
        except ChildProcessError:
            return status, seconds
        seconds += used.ru_utime + used.ru_stime
        status = found if ended == process else status


def _children() -> list[int]:
    """The processes that this one has to wait for."""
    with (
        contextlib.suppress(OSError),
        open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file,
    ):
        return [int(word) for word in file.read().split()]
    return []


def send(descriptor: int, message: dict) -> None:
    """Write a message: its length, then JSON."""
    content = json.dumps(message).encode()
    view = memoryview(struct.pack("<I", len(content)) + content)
    while view:
        view = view[os.write(descriptor, view) :]


def receive(descriptor: int) -> dict | None:
    """Read a message; None if the other side has closed."""
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
