"""The sandbox: processes without access to the solution, other submissions or the network.

Each grading thread has a sandbox. Its first process has imported torch and forks a process for each
case (`sandboxed`). A submission may return anything, so its output is checked here.
"""

import contextlib
import itertools
import json
import os
import select
import shutil
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codebase.homework import sandboxed
from codebase.homework.sandboxed import FILE, WAITING, Call, Case
from codebase.homework.submission import Submission
from codebase.project import ROOT, UserError

MOST_AXES, LARGEST_AXIS = 8, 10**6  # of a shape, which a report may show
START_SECONDS = 60  # importing torch takes 2, and on a busy machine 20
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8"}
ENVIRONMENT |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
# As root: user ids that systemd's table leaves free. Each sandbox has its own, because the limit on
# processes counts a user's.
USERS = itertools.count(60_706 + os.getpid() % 400)
SYSTEM = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64"]
SYSTEM += ["/etc/alternatives", "/etc/ld.so.cache"]
ABSENT = (
    "grading needs bubblewrap, which keeps submissions from your files: run "
    "`apt install bubblewrap`, or use Docker (homework/README.md, The sandbox)"
)
FORBIDDEN = (
    "AppArmor (Ubuntu 24.04) or Docker's seccomp may block user namespaces, which it needs: give "
    "bwrap an AppArmor profile with `userns,`, or grade in a container of its own "
    "(homework/README.md, The sandbox)"
)


@dataclass(frozen=True)
class Output:
    """The output of a submission's function in a case.

    Args:
        calls: see `sandboxed.outputs`; for a call that failed, a sentence that says why
        error: a sentence that says why there are no calls
        printed: the submission's printed output
        missing: packages that it imports but that are not installed
        broken: modules that could not be imported, and why
        cpu: CPU time in seconds
    """

    calls: tuple[list[dict] | str, ...]
    error: str = ""
    printed: str = ""
    missing: tuple[str, ...] = ()
    broken: tuple[tuple[str, str], ...] = ()
    cpu: float = 0.0


class SandboxEnded(Exception):
    """The sandbox's first process has ended or does not respond."""


def said(error: str, kind: str) -> str:
    """Return a sentence that says why a function has no output."""
    error = error[:400].rstrip(".")
    if kind == "NotImplementedError" and ":" not in error.partition(")")[2]:  # torch gives a reason
        return "It is not written yet, or calls a function that is not (NotImplementedError)."
    return f"It cannot be called: {error}." if kind == "Absent" else f"Your code raises {error}."


def check(kind: str) -> None:
    """Raise UserError, with instructions, if a kind of sandbox does not work on this machine."""
    if kind == "container" and os.geteuid() != 0:
        raise UserError("--sandbox container needs root, because submissions run as another user")
    if kind == "bubblewrap" and shutil.which("bwrap") is None:
        raise UserError(ABSENT)
    with Sandbox(kind) as sandbox:
        sandbox.start()


class Sandbox:
    """A sandbox.

    Args:
        kind: "bubblewrap"; "container", which only runs submissions as another user, and needs a
            container around the grader; or "none", for your own code
    """

    def __init__(self, kind: str):
        self.kind, self._user = kind, next(USERS)
        self._process: Any = None

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def run(self, handed_in: Submission, case: Case) -> Output:
        """Run a case. If a sandbox that was used before ends, run the case again in a new one.

        Raises:
            UserError: the sandbox does not start; this is not the submission's fault
        """
        message = {"package": handed_in.package, "sources": handed_in.sources, "case": case}
        content, longest = json.dumps(message).encode(), WAITING * case.seconds
        new = False
        while not new:  # what ends an old one may be what an earlier submission has left
            new = self._process is None
            self.start()
            try:
                self._process.stdin.write(struct.pack("<If", len(content), longest) + content)
                self._process.stdin.flush()
                return checked(*self._receive(longest + START_SECONDS), case)
            except (SandboxEnded, OSError):
                self.close()
        return _ended("the submission ended its sandbox")

    def start(self) -> None:
        """Start the first process if it is not running.

        Raises:
            UserError: the process does not start
        """
        if self._process is not None:
            return
        pipes: Any = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        command = _command(self.kind, self._user)
        self._process = subprocess.Popen(command, env=ENVIRONMENT, start_new_session=True, **pipes)
        try:
            self._receive(START_SECONDS)
        except SandboxEnded as error:
            self._process.kill()
            said = self._process.stderr.read().decode(errors="replace").strip()
            self.close()
            hint = FORBIDDEN if said.startswith("bwrap") else "grade again"
            why = said.splitlines()[-1] if said else str(error)
            raise UserError(f"the sandbox does not start ({why:.300}): {hint}") from None

    def close(self) -> None:
        """End all processes. In a PID namespace, killing the first process ends the others."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(OSError), process:
                process.kill()

    def _receive(self, seconds: float) -> tuple[bytes, dict]:
        """Return the output of a case's process, and the first process's report about it."""
        pipe = self._process.stdout
        if not select.select([pipe], [], [], seconds)[0]:
            raise SandboxEnded("its first process does not answer")
        if not (line := pipe.readline()):
            raise SandboxEnded("its first process has ended")
        told = json.loads(line)
        return pipe.read(told["size"]), told


def _command(kind: str, user: int) -> list[str]:
    """Return the command that runs sandboxed.py in a sandbox."""
    # bubblewrap needs its folder without links and dots.
    python = Path(sys.executable).parent.resolve() / Path(sys.executable).name
    root = os.geteuid() == 0
    # The limit on processes counts all threads of a user; the other user has none before.
    others = 0 if root else sum(1 for _ in Path("/proc").glob("[0-9]*/task/*"))
    arguments = [kind, str(user if root and kind != "none" else 0), str(others)]
    arguments.append(str(ROOT) if kind == "container" else "")
    if kind != "bubblewrap":
        return [str(python), "-I", sandboxed.__file__, *arguments]
    command = [shutil.which("bwrap") or "bwrap", "--die-with-parent", "--new-session"]
    command += ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
    # Otherwise bwrap is the first process, which other processes of its user can read or stop.
    command += ["--as-pid-1", "--proc", "/proc", "--dev", "/dev"]
    for folder in ("/tmp", "/dev/shm"):
        command += ["--perms", "1777", "--size", str(FILE), "--tmpfs", folder]
    command += ["--chdir", "/tmp"]
    # Programs and libraries, Python and its packages.
    packages = [path for path in map(Path, sys.path) if path.name == "site-packages"]
    own = [Path(sys.base_prefix), Path(sys.prefix), python.parent, *packages]
    folders = [*SYSTEM, *dict.fromkeys(str(path.resolve()) for path in own)]
    for folder in folders:
        for parent in reversed(Path(folder).parents[:-1]):  # which another user may pass through
            if str(parent) != "/tmp":
                command += ["--perms", "0755", "--dir", str(parent)]
        command += ["--ro-bind-try", folder, folder]
    for path in dict.fromkeys([ROOT, *map(Path, sys.path)]):  # this project, where it is installed
        package = path.resolve() / "codebase"
        if package.is_dir() and any(package.is_relative_to(folder) for folder in folders):
            command += ["--tmpfs", str(package)]
    command += ["--ro-bind", sandboxed.__file__, "/sandboxed.py"]
    command += ["--remount-ro", "/dev", "--remount-ro", "/"]
    return [*command, str(python), "-I", "/sandboxed.py", *arguments]


def checked(answer: bytes, told: dict, case: Case) -> Output:
    """Keep only an answer's numbers and texts.

    Args:
        answer: output of the submission's process, not trusted
        told: how the process ended, trusted
        case: the case
    """
    ended = ""
    if told["late"]:
        ended = f"it did not end within {WAITING * case.seconds:g} seconds"
    elif told["cpu"] >= 0.9 * case.seconds and told["status"]:
        ended = f"it used {case.seconds:g} seconds of CPU time, perhaps in an infinite loop"
    elif told["large"]:
        ended = "its output is larger than 4 MB"
    elif told["status"]:
        ended = f"its process ended with exit status {told['status']}"
    if ended:
        return _ended(ended, told["cpu"])
    try:
        found = dict(json.loads(answer))
        about: dict = {"cpu": told["cpu"], "printed": str(found.get("printed", ""))}
        about["missing"] = tuple(map(str, found["missing"]))
        about["broken"] = tuple((name, str(why)) for name, why in found["broken"].items())
        if "error" in found:
            error, kind = str(found["error"]), str(found["kind"])
            return Output((), said(error, kind), **about)
        pairs = zip(case.calls, found["calls"], strict=True)
        return Output(tuple(_call(call, one) for call, one in pairs), **about)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError):
        return _ended("it returned no numbers", told["cpu"])


def _ended(why: str, cpu: float = 0.0) -> Output:
    return Output((), f"Your code gave no output: {why}.", cpu=cpu)


def _call(call: Call, found: Any) -> list[dict] | str:
    """Return the numbers of a call's outputs, or a sentence that says why there are none."""
    if isinstance(found, dict):
        return said(str(found["error"]), str(found["kind"]))
    kept = []
    for output in found:
        one: dict = {
            "values": [list(map(float, term)) for term in output["values"]],
            "shapes": [
                [min(int(n), LARGEST_AXIS) for n in s[:MOST_AXES]] for s in output["shapes"]
            ],
            "gradients": {k: list(map(float, value)) for k, value in output["gradients"].items()},
        }
        if call.noise is not None:
            one["noise"] = [list(map(float, term)) for term in output["noise"]]
            one["drawn"] = list(map(int, output["drawn"]))
        kept.append(one)
    return kept
