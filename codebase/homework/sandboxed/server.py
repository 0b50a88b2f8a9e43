"""The sandbox's first process, which has imported torch and forks a process for each case.

The first process never runs or reads a submission's code. The forked process reads the submission
and the case, calls the function, and writes numbers as JSON, never as a pickle, to a file that the
kernel copies to the grader. When it ends, all processes that it started are ended, and its files
are deleted.
"""

import contextlib
import ctypes
import gc
import io
import json
import math
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from typing import Any

with contextlib.suppress(ImportError):  # Windows has none, and grades nothing
    import resource

from . import calling, student

MEGABYTE = 1 << 20
DATA, ADDRESSES = 2000 * MEGABYTE, 1500 * MEGABYTE  # of a process; what a case may map beside torch
FILE, FILES, PROCESSES = 32 * MEGABYTE, 64, 6
LARGEST_ANSWER = 4 * MEGABYTE
PRINTED = 20_000  # bytes of what a submission prints that are kept
WAITING = 3  # a case's wall time may be so many times its CPU time: busy machine, sleep
PLACES = ("/tmp", "/dev/shm", "/var/tmp")  # where a submission may write


def serve() -> None:
    """Run cases until the input ends.

    The arguments are the kind of sandbox; a user to become (0: none); the number of that user's
    processes; and a folder that the user must not be able to read.
    """
    kind, user, others, hidden = sys.argv[1:]
    gc.disable()
    _limit(kind, int(user), int(others))
    if hidden and os.access(hidden, os.R_OK | os.X_OK):
        sys.exit(f"{hidden} can be read by every user: run chmod go-rwx on it")
    if not os.access(os.__file__, os.R_OK):
        sys.exit(f"another user cannot read Python in {sys.base_prefix}")
    import numpy  # noqa: F401  so that forked processes have it
    import torch

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
    end_with_parent(signal.SIGKILL)
    prctl = ctypes.CDLL(None).prctl
    prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE: what it forks cannot read or write its memory and files
    prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: orphans become its children
    prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS


def end_with_parent(number: int) -> None:
    """Request a signal when the parent ends; changing the user cancels the request."""
    ctypes.CDLL(None).prctl(1, number)  # PR_SET_PDEATHSIG


def _child(size: int, answer: Any) -> None:
    """Read a message, call the function, and write what it returns; then end the process."""
    import random

    import numpy

    os.setsid()
    with open(0, "rb", closefd=False) as pipe:
        message = json.loads(pipe.read(size))
    case = calling.Case.read(message["case"])
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(null, descriptor)
    printed = io.BytesIO()
    # `kept`, because a stream without references would close `printed`.
    kept = sys.stdout = sys.stderr = io.TextIOWrapper(printed, "utf-8", "replace")
    _limit_case(case.seconds)
    student.calm()
    random.seed(case.seed)
    numpy.random.seed(case.seed % (1 << 32))
    root = tempfile.mkdtemp()
    modules = student.Modules(root, message["package"])
    for file, source in message["sources"].items():
        path = os.path.join(root, file)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8", errors="surrogatepass") as stream:
            stream.write(source)
    try:
        modules.install()
        drawn = calling.draw(case)
        function, model = student.find(case, drawn, modules)
        result: dict[str, Any] = {
            "calls": calling.outputs(case, drawn, function, model, modules.describe)
        }
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
    while not (ended := os.waitid(os.P_PID, process, how)) and time.monotonic() < deadline:
        time.sleep(0.002)
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
