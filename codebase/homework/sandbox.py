"""Where submissions run: processes that see no solution, no other submission, and no network.

bubblewrap gives them a file system of their own where it works; else root gives them another user
and namespaces; else there are limits alone, and `guarantees` says what is not kept from them.
"""

import contextlib
import json
import os
import select
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

from codebase import ROOT
from codebase.homework import worker

WORKER = Path(worker.__file__)
START_SECONDS = 60  # importing torch takes 2, and on a busy machine 20
MEMORY = 3000 << 20  # bytes, of all processes of a sandbox together
FIRST_USER = 61_000  # user ids that nobody has; each sandbox has one of its own
KINDS = ("bubblewrap", "namespaces", "limits")


class SandboxEnded(Exception):
    """The sandbox's own process has ended, or uses too much memory."""


def kind_of_this_machine() -> str:
    """The best kind of sandbox that works here."""
    return next(kind for kind in KINDS if _works(kind))


def guarantees(kind: str) -> str:
    """One line: how submissions are kept apart, and what is not guaranteed."""
    if kind == "bubblewrap":
        return "Submissions run in bubblewrap: no network, no files of this project or of others."
    if kind == "namespaces":
        return (
            "Submissions run as another user in namespaces of their own: no network, and the "
            "folders of this project and of grading are hidden; other readable files are not."
        )
    return (
        "Submissions run with limits alone: neither bubblewrap nor root is here. They CAN read "
        "files of this user, this project's solution among them, and use the network."
    )


def _works(kind: str) -> bool:
    if kind == "limits":
        return True
    try:
        command = [*_prefix(kind), sys.executable, "-I", "-c", "print('works')"]
        done = subprocess.run(command, capture_output=True, timeout=20, env=_environment(kind, 0))
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0 and done.stdout == b"works\n"


def _environment(kind: str, number: int) -> dict[str, str]:
    hidden = [str(ROOT), "/root", "/home", "/autograder", str(Path.cwd())]
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": "/tmp",
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "GRADER_PROCESSES": str(worker.LIMITS["processes"] + _own_processes()),
    }
    if kind != "limits":
        environment["GRADER_OWN_PIDS"] = "1"
        environment["GRADER_USER"] = str(FIRST_USER + number % 1000)
    if kind == "namespaces":
        kept = [Path(path).resolve() for path in (sys.prefix, sys.base_prefix)]
        environment["GRADER_HIDE"] = ":".join(
            path
            for path in dict.fromkeys(hidden)
            if path != "/" and not any(k.is_relative_to(Path(path).resolve()) for k in kept)
        )
    return environment


def _own_processes() -> int:
    """How many threads there may be that count towards this user's limit; none for root."""
    if os.geteuid() == 0:
        return 0
    return sum(1 for _ in Path("/proc").glob("[0-9]*/task/*"))


def _prefix(kind: str) -> list[str]:
    """The command that starts another one in a sandbox."""
    if kind == "limits":
        return []
    if kind == "namespaces":
        if os.geteuid() != 0 or shutil.which("unshare") is None:
            raise FileNotFoundError("unshare")
        namespaces = ["--mount", "--pid", "--net", "--ipc", "--uts"]
        return ["unshare", *namespaces, "--fork", "--kill-child", "--mount-proc"]
    command = ["bwrap", "--die-with-parent", "--new-session", "--unshare-pid", "--unshare-net"]
    command += ["--unshare-ipc", "--unshare-uts", "--proc", "/proc", "--dev", "/dev"]
    command += ["--size", str(64 << 20), "--tmpfs", "/tmp", "--chdir", "/tmp"]
    folders = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/alternatives"]
    folders += ["/etc/ld.so.cache", sys.base_prefix, sys.prefix]
    folders += [str(path) for path in map(Path, sys.path) if path.name == "site-packages"]
    for folder in dict.fromkeys(folders):
        path = Path(folder)
        if path.is_symlink():
            command += ["--symlink", os.readlink(path), folder]
        elif path.exists():
            command += ["--ro-bind", folder, folder]
    for path in map(Path, sys.path):  # where the project itself is installed
        if path.name == "site-packages" and (path / "codebase").exists():
            command += ["--tmpfs", str(path / "codebase")]
    return [*command, "--ro-bind", str(WORKER), "/grader.py"]


class Sandbox:
    """One submission's processes.

    Args:
        kind: see `KINDS`
        package: the submission's, "codebase" or "submission"
        sources: its files
        number: of the sandbox, which gives it a user of its own
    """

    def __init__(self, kind: str, package: str, sources: dict[str, str], number: int = 0):
        self.kind, self.number = kind, number
        self._hello = {"package": package, "sources": sources}
        self._process = None

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def ask(self, question: dict) -> dict:
        """The answer to a question, see `worker.answer`; or its `error`.

        A submission may end its own sandbox: the next question then gets a new one.
        """
        try:
            if self._process is None:
                self._start()
            self._send(question)
            return self._receive(question["seconds"] + 10)
        except SandboxEnded as ended:
            self.close()
            return {"error": str(ended), "kind": "Ended", "broken": {}, "missing": []}

    def close(self) -> None:
        """End all its processes."""
        if self._process is None:
            return
        process, self._process = self._process, None
        for stream in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                stream.close()
        process.kill()  # with bubblewrap and unshare, their namespace of processes ends too
        process.wait()
        for pid in self._leftover:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, 9)

    def _start(self) -> None:
        script = "/grader.py" if self.kind == "bubblewrap" else str(WORKER)
        command = [sys.executable, "-I", script]
        if self.kind == "namespaces":  # the script itself is about to be hidden
            command = [sys.executable, "-I", "-c", WORKER.read_text()]
        self._leftover = []
        self._process = subprocess.Popen(
            [*_prefix(self.kind), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(self.kind, self.number),
            start_new_session=True,
        )
        self._receive(START_SECONDS)
        self._send(self._hello)
        self._receive(START_SECONDS)

    def _send(self, message: dict) -> None:
        content = json.dumps(message).encode()
        try:
            self._process.stdin.write(struct.pack("<I", len(content)) + content)
            self._process.stdin.flush()
        except OSError:
            raise SandboxEnded("the submission ended its sandbox") from None

    def _receive(self, seconds: float) -> dict:
        """A message, while the sandbox's memory is watched."""
        content, deadline, wanted = bytearray(), time.monotonic() + seconds, 4
        descriptor = self._process.stdout.fileno()
        while len(content) < wanted:
            if time.monotonic() > deadline:
                raise SandboxEnded(f"no answer within {seconds:g} seconds")
            if not select.select([descriptor], [], [], 0.2)[0]:
                self._leftover = descendants(self._process.pid)
                if resident(self._leftover) > MEMORY:
                    raise SandboxEnded(f"its processes use more than {MEMORY >> 20} MB together")
                continue
            piece = os.read(descriptor, 1 << 20)
            if not piece:
                raise SandboxEnded("the submission ended its sandbox")
            content += piece
            if wanted == 4 and len(content) >= 4:
                wanted = 4 + struct.unpack("<I", content[:4])[0]
                if wanted > 2 * worker.LIMITS["output"]:
                    raise SandboxEnded("an answer of more than 8 MB")
        try:
            message = json.loads(bytes(content[4:wanted]))
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            raise SandboxEnded("the submission ended its sandbox")
        return message


def descendants(process: int) -> list[int]:
    """A process's children, and theirs."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                stat = (entry / "stat").read_bytes()
                parents[int(entry.name)] = int(stat.rpartition(b")")[2].split()[1])
    found = [process]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found[1:]


def resident(processes: list[int]) -> int:
    """Bytes of memory that processes hold for themselves."""
    total = 0
    for pid in processes:
        with contextlib.suppress(OSError, IndexError, ValueError):
            pages = Path(f"/proc/{pid}/statm").read_bytes().split()
            total += (int(pages[1]) - int(pages[2])) * os.sysconf("SC_PAGE_SIZE")
    return total
