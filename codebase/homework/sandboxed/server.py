"""The sandbox's first process, which has imported torch and forks a process for each case.

The first process never runs or reads a submission's code. The forked process reads the submission
and the case, calls the function, and writes numbers as JSON, never as a pickle. When it ends, all
processes that it started are ended, and its files are deleted.
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

with contextlib.suppress(ImportError):  # Windows has none of these, and grades nothing
    import fcntl
    import resource

from . import calling, student

MEGABYTE = 1 << 20
DATA, ADDRESSES = 2000 * MEGABYTE, 1500 * MEGABYTE  # of a process; what a case may map beside torch
FILE, FILES, PROCESSES = 32 * MEGABYTE, 64, 6
PRINTED = 20_000  # bytes of what a submission prints that are kept
WAITING = 3  # a case's wall time may be so many times its CPU time: busy machine, sleep
PLACES = ("/tmp", "/dev/shm", "/var/tmp")  # where a submission may write


def serve() -> None:
    """Run cases until the input ends. The first argument is the kind of sandbox."""
    kind = sys.argv[1]
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")
    gc.disable()
    tempfile.gettempdir()  # found while there is space in it
    try:
        _limit(kind)
        if (hidden := os.environ.get("GRADER_HIDDEN")) and os.access(hidden, os.R_OK | os.X_OK):
            return _tell({"error": f"{hidden} can be read by every user: run chmod go-rwx on it"})
        if not os.access(os.__file__, os.R_OK):
            return _tell({"error": f"another user cannot read Python in {sys.base_prefix}"})
        import numpy  # noqa: F401  so that forked processes have it
        import torch

        torch.set_num_threads(1)
    except Exception as error:
        return _tell({"error": repr(error)})
    gc.freeze()
    limits = list(map(resource.getrlimit, range(16)))
    _tell({"ready": True})
    while len(head := _read(0, 8)) == 8:
        size, seconds = struct.unpack("<If", head)
        process = os.fork()
        if process == 0:
            try:
                _child(size)
            finally:
                os._exit(1)
        how = _end(process, seconds, kind)
        if kind != "none":
            _empty()
        # A submission may have changed this process's limits, or the pipe of its answers.
        fcntl.fcntl(1, fcntl.F_SETFL, 0)
        if limits != list(map(resource.getrlimit, range(16))):
            return
        _tell(how)


def _limit(kind: str) -> None:
    """Limit this process and its children; as root, also become another user."""
    user = int(os.environ.get("GRADER_USER", "0"))
    for name, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_DATA, DATA),
        (resource.RLIMIT_FSIZE, FILE),
        (resource.RLIMIT_NOFILE, FILES),
    ):
        resource.setrlimit(name, (value, value))
    if user and os.geteuid() == 0:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    if kind == "none":
        return
    count = PROCESSES + int(os.environ["GRADER_PROCESSES"])
    resource.setrlimit(resource.RLIMIT_NPROC, (count, count))
    end_with_parent(signal.SIGKILL)
    prctl = ctypes.CDLL(None).prctl
    prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE: what it forks cannot read or write its memory and files
    prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: orphans become its children
    prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS


def end_with_parent(number: int) -> None:
    """Request a signal when the parent ends; changing the user cancels the request."""
    ctypes.CDLL(None).prctl(1, number)  # PR_SET_PDEATHSIG


def _child(size: int) -> None:
    """Read a message, call the function, write its result, and end the process."""
    import random

    import numpy

    os.setsid()
    message = json.loads(_read(0, size))
    case = calling.Case.read(message["case"])
    answer, null = os.dup(1), os.open(os.devnull, os.O_RDONLY)
    root = tempfile.mkdtemp()
    printed = tempfile.TemporaryFile()
    os.dup2(null, 0)
    for descriptor in (1, 2):
        os.dup2(printed.fileno(), descriptor)
    sys.stdin = open(0, closefd=False, encoding="utf-8")
    sys.stdout = sys.stderr = open(
        1, "w", errors="replace", closefd=False, buffering=1, encoding="utf-8"
    )
    _limit_case(case.seconds)
    student.calm()
    random.seed(case.seed)
    numpy.random.seed(case.seed % (1 << 32))
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
    with contextlib.suppress(BaseException):
        sys.stdout.flush()
        size = os.lseek(printed.fileno(), 0, os.SEEK_END)
        text = os.pread(printed.fileno(), PRINTED, 0).decode(errors="replace")
        result["printed"] = text + ("\n…" if size > PRINTED else "")
    with contextlib.suppress(OSError):
        shutil.rmtree(root)
    _write(answer, json.dumps(result).encode())
    os._exit(0)


def _limit_case(seconds: float) -> None:
    """Limit a case's CPU time and its mapped memory (no other limit counts shared memory)."""
    whole = math.ceil(seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (whole, whole + 1))
    with open("/proc/self/statm", encoding="ascii") as file:
        size = int(file.read().split()[0]) * resource.getpagesize() + ADDRESSES
    resource.setrlimit(resource.RLIMIT_AS, (size, size))


def _end(process: int, seconds: float, kind: str) -> dict:
    """Wait for a case's process, end it and all that it started, and return how it ended."""
    deadline, ended, late = time.monotonic() + seconds, None, False
    while ended is None and not late:
        found, status, used = os.wait4(process, os.WNOHANG)
        ended, late = (status, used) if found else None, time.monotonic() > deadline
        time.sleep(0 if ended else 0.002)
    cpu = 0.0 if ended is None else ended[1].ru_utime + ended[1].ru_stime
    while True:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if kind == "none":
                os.killpg(process, signal.SIGKILL)
            else:
                os.kill(-1, signal.SIGKILL)  # all of this user, or of this namespace
        try:
            found, status, used = os.wait4(-1, 0)
        except ChildProcessError:
            break
        cpu += used.ru_utime + used.ru_stime
        ended = (status, used) if found == process else ended
    assert ended is not None  # there was this child
    return {"status": os.waitstatus_to_exitcode(ended[0]), "late": late, "cpu": cpu}


def _empty() -> None:
    """Delete a case's leftovers. An error ends this process, so the case has no output."""
    libc = ctypes.CDLL(None)
    for kind, arguments in (("shm", (0, None)), ("msg", (0, None)), ("sem", (0, 0))):  # IPC_RMID
        with contextlib.suppress(OSError), open(f"/proc/sysvipc/{kind}", encoding="ascii") as file:
            for line in list(file)[1:]:
                getattr(libc, f"{kind}ctl")(int(line.split()[1]), *arguments)
    libc.syscall({"x86_64": 250}.get(os.uname().machine, 219), 7, -4)  # clears the user's keyring
    for place in filter(os.path.isdir, dict.fromkeys([*PLACES, tempfile.gettempdir()])):
        for entry in list(os.scandir(place)):
            if entry.stat(follow_symlinks=False).st_uid != os.geteuid():
                continue
            # These programs take folders of any depth.
            if entry.is_dir(follow_symlinks=False):
                _run("chmod", "-R", "u+rwx", "--", entry.path)
            if _run("rm", "-rf", "--", entry.path):
                raise OSError(f"{entry.path} cannot be deleted")


def _run(*command: str) -> int:
    """Run a program without this process's pipes; return its exit status."""
    null = subprocess.DEVNULL
    return subprocess.run(command, stdin=null, stdout=null, stderr=null).returncode


def _tell(message: dict) -> None:
    """Write a line about a case or this process to the grader, on standard error."""
    _write(2, json.dumps(message).encode() + b"\n")


def _write(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def _read(descriptor: int, size: int) -> bytes:
    """Read `size` bytes, or fewer if the input ends."""
    content = io.BytesIO()
    while content.tell() < size:
        piece = os.read(descriptor, min(size - content.tell(), 1 << 16))
        if not piece:
            break
        content.write(piece)
    return content.getvalue()
