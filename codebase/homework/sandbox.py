"""Where submissions run: processes that see no solution, no other submission, and no network.

bubblewrap gives them a file system of their own where it works; else root gives them another user
and namespaces; else there are limits alone, and `guarantees` says what is not kept from them.
"""

import contextlib
import json
import math
import os
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import ClassVar

from codebase import UserError
from codebase.homework import SANDBOXES, worker

WORKER = Path(worker.__file__)
END_SECONDS = 5  # in which killed processes are gone
START_SECONDS = 60  # importing torch takes 2, and on a busy machine 20
MEMORY = 3000 << 20  # bytes, of all processes of a sandbox together
# Of root's sandboxes: user ids that systemd's table leaves free. Each grading process has one of
# its own, for the limit on processes counts a user's.
USER = 60_706 + os.getpid() % 478


class SandboxEnded(Exception):
    """The sandbox's own process has ended, or uses too much memory."""


def kind_of_this_machine() -> str:
    """The best kind of sandbox that works here. Raises UserError where none does."""
    for kind in SANDBOXES:
        if _works(kind):
            return kind
    raise UserError(
        f"no sandbox works on this machine: {_bubblewraps_trouble()}; install Python where all "
        "users may read it"
    )


def wanted(kind: str) -> str:
    """A kind of sandbox that somebody asks for. Raises UserError where it does not work here."""
    if not _works(kind):
        why = f" ({_bubblewraps_trouble()})" if kind == "bubblewrap" else ""
        raise UserError(f"--sandbox {kind} does not work on this machine{why}: omit the flag")
    return kind


def guarantees(kind: str) -> str:
    """One line: how submissions are kept apart, and what is not guaranteed."""
    if kind == "bubblewrap":
        return (
            "Submissions run in bubblewrap: they see no file of this project or of others, and no "
            "network."
        )
    if kind == "namespaces":
        return (
            "Submissions run as another user, in namespaces of their own: they see no file of this "
            "project or of others, and no network."
        )
    who = "another user may" if os.geteuid() == 0 else "you may"
    return (
        f"Submissions run only with limits ({_bubblewraps_trouble()}): they CAN read and write "
        f"what {who}, perhaps this project's solution."
    )


def _bubblewraps_trouble() -> str:
    """Why bubblewrap does not run here, and what to do."""
    if shutil.which("bwrap") is None:
        return "bubblewrap is not installed: apt install bubblewrap"
    command = [*_prefix("bubblewrap"), sys.executable, "-I", "-c", "pass"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
    said = done.stderr.strip().splitlines()
    if not said:
        return "bubblewrap was not asked for" if done.returncode == 0 else "bubblewrap fails"
    return (
        f"bubblewrap fails with {said[-1]!r:.200}: where AppArmor or a container forbids user "
        "namespaces, allow them for bwrap"
    )


def _works(kind: str) -> bool:
    try:
        sandbox = Sandbox(kind, "", {})
        try:
            return sandbox.start("--check")
        finally:
            sandbox.close()
    except (OSError, SandboxEnded):
        return False


def _environment(kind: str) -> dict[str, str]:
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
    if os.geteuid() == 0:
        environment["GRADER_USER"] = str(USER)
    return environment


def _folders() -> list[str]:
    """What a sandbox sees of the file system: programs and libraries, Python and its packages."""
    folders = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/alternatives"]
    folders += ["/etc/ld.so.cache", sys.base_prefix, sys.prefix]
    folders += [str(path) for path in map(Path, sys.path) if path.name == "site-packages"]
    return [folder for folder in dict.fromkeys(folders) if os.path.lexists(folder)]


def _hidden() -> list[str]:
    """What it does not see below those: the project, where that is installed."""
    installed = [path / "codebase" for path in map(Path, sys.path) if path.name == "site-packages"]
    return [str(folder) for folder in installed if folder.exists()]


def _own_processes() -> int:
    """How many threads there may be that count towards this user's limit; none for root."""
    if os.geteuid() == 0:
        return 0
    return sum(1 for _ in Path("/proc").glob("[0-9]*/task/*"))


def _prefix(kind: str) -> list[str]:
    """The command that starts another one in a sandbox; namespaces are made by the worker."""
    if kind != "bubblewrap":
        return []
    program = shutil.which("bwrap")
    if program is None:
        raise FileNotFoundError("bwrap")
    command = [program, "--die-with-parent", "--new-session", "--unshare-pid", "--unshare-net"]
    command += ["--unshare-ipc", "--unshare-uts", "--proc", "/proc", "--dev", "/dev"]
    for folder in ("/tmp", "/dev/shm"):
        command += ["--perms", "1777", "--size", str(worker.LIMITS["file"]), "--tmpfs", folder]
    command += ["--chdir", "/tmp"]
    for folder in _folders():
        for parent in reversed(Path(folder).parents[:-1]):  # which another user may pass through
            if str(parent) != "/tmp":
                command += ["--perms", "0755", "--dir", str(parent)]
        if os.path.islink(folder):
            command += ["--symlink", os.readlink(folder), folder]
        else:
            command += ["--ro-bind", folder, folder]
    for folder in _hidden():
        command += ["--tmpfs", folder]
    command += ["--ro-bind", str(WORKER), "/grader.py"]
    return [*command, "--remount-ro", "/dev", "--remount-ro", "/"]


class Sandbox:
    """One submission's processes.

    Args:
        kind: see `codebase.homework.SANDBOXES`
        package: the submission's, "codebase" or "submission"
        sources: its files
    """

    _spare: ClassVar[tuple[subprocess.Popen, str] | None] = None  # of namespaces, see worker.serve

    def __init__(self, kind: str, package: str, sources: dict[str, str]):
        self.kind = kind
        self._hello = {"package": package, "sources": sources}
        self._process, self._temporary = None, None

    def __enter__(self):
        return self

    def __exit__(self, exception, *_):
        if self._process is not None and exception is None and self._ended():
            Sandbox._spare = (self._process, self._temporary)
            self._process = None
        self.close()

    def ask(self, question: dict) -> dict:
        """The answer to a question, see `worker.answer`; or its `error`.

        A submission may end its own sandbox: the next question then gets a new one.
        """
        try:
            if self._process is None:
                self.start()
            self._send(question)
            return checked(self._receive(question["seconds"] + 10), question)
        except SandboxEnded as ended:
            self.close()
            return {"error": str(ended), "kind": "Ended", "broken": {}, "missing": []}

    def ready(self) -> None:
        """Start it, so that the first question does not wait for that."""
        try:
            self.start()
        except SandboxEnded:  # the first question tries again, and says why
            self.close()

    def close(self) -> None:
        """End all its processes."""
        if self._process is None:
            return
        process, self._process = self._process, None
        for stream in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                stream.close()
        below = descendants(process.pid)
        process.kill()  # with namespaces of processes, all that is in them ends too
        process.wait()
        deadline = time.monotonic() + END_SECONDS
        while below and time.monotonic() < deadline:
            for pid in below:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
            below = [pid for pid in below if runs(pid)]
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def start(self, *arguments: str) -> bool:
        """Start its processes; returns whether they say that they are ready.

        Raises:
            SandboxEnded: they do not start
        """
        if self.kind == "namespaces" and Sandbox._spare is not None:
            (self._process, self._temporary), Sandbox._spare = Sandbox._spare, None
            ready = {"ready": True}
        else:
            self._open(arguments)
            ready = self._receive(START_SECONDS)
        if "ready" in ready:
            self._send({"submission": True})
            self._send(self._hello)
            begun = self._receive(START_SECONDS)
            if "files" in begun:
                return ready["ready"] is True
            ready = begun
        raise SandboxEnded(f"the sandbox does not start: {ready.get('error')}")

    def _open(self, arguments: tuple[str, ...]) -> None:
        """Start its first process."""
        if self.kind == "namespaces" and (sys.platform != "linux" or os.geteuid() != 0):
            raise PermissionError("namespaces are for root on Linux")
        # As text, where the file itself is about to be hidden, or another user may not read it.
        script = (
            ["/grader.py"]
            if self.kind == "bubblewrap"
            else ["-c", WORKER.read_text(encoding="utf-8")]
        )
        environment = _environment(self.kind)
        if self.kind == "limits":
            self._temporary = tempfile.mkdtemp(prefix="grader-")
            if user := environment.get("GRADER_USER"):
                os.chown(self._temporary, int(user), int(user))
            environment["TMPDIR"] = environment["HOME"] = self._temporary
        if self.kind == "namespaces":
            self._temporary = environment["GRADER_ROOT"] = tempfile.mkdtemp(prefix="grader-")
            environment["TMPDIR"] = "/tmp"  # of its own
            folders = {"seen": _folders(), "hidden": _hidden()}
            environment["GRADER_FOLDERS"] = json.dumps(folders)
        self._process = subprocess.Popen(
            [*_prefix(self.kind), sys.executable, "-I", *script, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )

    def _ended(self) -> bool:
        """Whether nothing of the submission is left, and the first process waits for another."""
        if self.kind != "namespaces":
            return False
        try:
            self._send({"end": True})
            return self._receive(END_SECONDS) == {"ended": True}
        except SandboxEnded:
            return False

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
                raise SandboxEnded(f"none came within {seconds:g} seconds")
            if not select.select([descriptor], [], [], 0.2)[0]:
                if resident(descendants(self._process.pid)) > MEMORY:
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


def runs(pid: int) -> bool:
    """Whether a process has not ended; one that waits to be reaped has."""
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2][:1] not in (b"Z", b"X")
    return False


def checked(answer: dict, question: dict) -> dict:
    """An answer of which only numbers and texts are left, of the form that the question asks for.

    What comes out of a sandbox may have been written by the submission: nothing about it is sure.
    """
    kept = {
        "printed": answer.get("printed") if isinstance(answer.get("printed"), str) else "",
        "missing": [],
        "broken": {},
    }
    if isinstance(answer.get("missing"), list):
        kept["missing"] = [word for word in answer["missing"][:50] if isinstance(word, str)]
    if isinstance(answer.get("broken"), dict):
        pairs = list(answer["broken"].items())[:50]
        kept["broken"] = {name: reason for name, reason in pairs if isinstance(reason, str)}
    try:
        calls = [
            [_numbers(result, question, call) for result in results]
            for results, call in zip(answer["calls"], question["calls"], strict=True)
        ]
        if [len(results) for results in calls] != [c.get("repeat", 1) for c in question["calls"]]:
            raise ValueError
        return kept | {"calls": calls}
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError):
        unknown = "an answer that is none" if "calls" in answer else "no answer"
        error, kind = answer.get("error"), answer.get("kind")
        kept["error"] = error if isinstance(error, str) else unknown
        return kept | {"kind": kind if isinstance(kind, str) else "Ended"}


def _numbers(result: dict, question: dict, call: dict) -> dict:
    """One result: values and shapes of its terms, and gradients."""
    values = [[float(value) for value in term] for term in result["values"]]
    shapes = [[int(size) for size in shape] for shape in result["shapes"]]
    for term, shape in zip(values, shapes, strict=True):
        if min(shape, default=0) < 0 or len(term) != min(math.prod(shape), worker.MOST_VALUES):
            raise ValueError
    gradients = {}
    for name, value in (result.get("gradients") or {}).items():
        if value is None:
            gradients[name] = None
        elif question["model"]:
            gradients[name] = float(value)
        else:
            gradients[name] = [float(slope) for slope in value]
            if len(value) != math.prod(call["args"][int(name)]["shape"]):
                raise ValueError
    return {"values": values, "shapes": shapes, "gradients": gradients}


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
    """Bytes of memory that processes hold, without the files that they have mapped."""
    total = 0
    for pid in processes:
        with contextlib.suppress(OSError, IndexError, ValueError):
            for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
                if line.startswith(("RssAnon:", "RssShmem:")):
                    total += int(line.split()[1]) << 10
    return total
