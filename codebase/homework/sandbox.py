"""The sandbox: processes without access to the solution, other submissions or the network.

A grading process has one sandbox. Its first process has imported torch and forks a process for each
case (`sandboxed.server`). A submission's answer may be anything, so it is checked here.
"""

import contextlib
import json
import math
import os
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codebase.homework import sandboxed
from codebase.homework.sandboxed import server
from codebase.homework.sandboxed.calling import MOST_VALUES, Call, Case, Spec
from codebase.homework.submission import Submission
from codebase.project import ROOT, UserError

START_SECONDS = 60  # importing torch takes 2, and on a busy machine 20
LARGEST_ANSWER = 4 << 20  # bytes
MOST_DRAWN, MOST_AXES = 1 << 30, 8  # numbers of draws, or elements of an axis; axes
# As root: a user id that systemd's table leaves free. Grading processes have several, because the
# limit on processes counts a user's.
USER = 60_706 + os.getpid() % 478
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
        calls: see `calling.outputs`; for a call that failed, a sentence that says why
        error: why there are no calls
        kind: the error's class; "Ended" if the process ended or timed out
        printed: the submission's printed output
        missing: packages that it imports but that are not installed
        broken: modules that could not be imported, and why
        cpu: CPU time in seconds
    """

    calls: tuple[list[dict] | str, ...]
    error: str = ""
    kind: str = ""
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
    if kind == "Ended":
        return f"Your code gave no output: {error}."
    return f"It cannot be called: {error}." if kind == "Absent" else f"Your code raises {error}."


def check(kind: str) -> None:
    """Raise UserError, with instructions, if a kind of sandbox does not work on this machine."""
    if kind == "container" and os.geteuid() != 0:
        raise UserError("--sandbox container needs root, because submissions run as another user")
    if kind == "bubblewrap" and shutil.which("bwrap") is None:
        raise UserError(ABSENT)
    with Sandbox(kind) as sandbox:
        try:
            sandbox.start()
        except UserError as error:
            if kind != "bubblewrap":
                raise
            command = [*_command(kind, os.devnull)[:-4], "/bin/true"]
            done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
            why = (done.stderr.strip().splitlines() or [""])[-1]
            if not why:
                raise
            raise UserError(f"bubblewrap fails with {why!r:.200}. {FORBIDDEN}") from error


class Sandbox:
    """The sandbox of a grading process.

    Args:
        kind: "bubblewrap"; "container", which only runs submissions as another user, and needs a
            container around the grader; or "none", for your own code
    """

    def __init__(self, kind: str):
        self.kind = kind
        self._process: Any = None
        self._folder: tempfile.TemporaryDirectory | None = None

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
        content, longest = json.dumps(message).encode(), server.WAITING * case.seconds
        new = False
        while not new:  # what ends an old one may be what an earlier submission has left
            new = self._process is None
            self.start()
            try:
                self._process.stdin.write(struct.pack("<If", len(content), longest) + content)
                self._process.stdin.flush()
                answer, told = self._receive(longest + START_SECONDS)
                return checked(answer, told, case)
            except (SandboxEnded, OSError):
                self.close()
        return Output((), "the submission ended its sandbox", "Ended")

    def start(self) -> None:
        """Start the first process if it is not running.

        Raises:
            UserError: the process does not start
        """
        if self._process is not None:
            return
        self._folder = tempfile.TemporaryDirectory(prefix="grader-")
        os.chmod(self._folder.name, 0o711)  # another user passes through it
        archive = Path(self._folder.name, "grader.pyz")
        with zipfile.ZipFile(archive, "w") as file:
            for path in sorted(Path(sandboxed.__file__).parent.glob("*.py")):
                file.write(path, f"sandboxed/{path.name}")
            file.writestr("__main__.py", "from sandboxed.server import serve\n\nserve()\n")
        archive.chmod(0o644)
        self._process = subprocess.Popen(
            _command(self.kind, str(archive)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(self.kind),
            start_new_session=True,
        )
        try:
            _, told = self._receive(START_SECONDS)
            trouble = told.get("error")
        except SandboxEnded as error:
            trouble = str(error)
        if trouble:
            self.close()
            raise UserError(f"the sandbox does not start ({trouble:.300}): grade again")

    def close(self) -> None:
        """End all processes. In a PID namespace, killing the first process ends the others."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                with contextlib.suppress(OSError):
                    stream.close()
        if self._folder is not None:
            self._folder.cleanup()

    def _receive(self, seconds: float) -> tuple[bytes, dict]:
        """Return the output of a case's process, and the first process's report about it."""
        answer, said = self._process.stdout.fileno(), self._process.stderr.fileno()
        content, line, deadline = bytearray(), bytearray(), time.monotonic() + seconds
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([answer, said], [], [], max(deadline - time.monotonic(), 0))
            if not ready:
                raise SandboxEnded("its first process does not answer")
            if said in ready:
                line += (piece := os.read(said, 1 << 16))
                if not piece:
                    raise SandboxEnded(f"its first process has ended, {self._process.poll()}")
            if answer in ready:
                content += os.read(answer, 1 << 16)
                del content[LARGEST_ANSWER + 1 :]
        while select.select([answer], [], [], 0)[0] and (piece := os.read(answer, 1 << 16)):
            content += piece
        try:
            return bytes(content), dict(json.loads(line))
        except (ValueError, TypeError):  # bubblewrap's own words
            raise SandboxEnded(line.decode(errors="replace").strip()) from None


def _environment(kind: str) -> dict[str, str]:
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8"}
    environment |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    root = os.geteuid() == 0
    # The limit on processes counts all threads of a user; the other user has none before.
    others = 0 if root else sum(1 for _ in Path("/proc").glob("[0-9]*/task/*"))
    environment["GRADER_PROCESSES"] = str(others)
    if root and kind != "none":
        environment["GRADER_USER"] = str(USER)
    if kind == "container":
        environment["GRADER_HIDDEN"] = str(ROOT)
    return environment


def _python() -> Path:
    """Return the path of this Python, with its folder resolved, as bubblewrap needs it."""
    return Path(sys.executable).parent.resolve() / Path(sys.executable).name


def _folders() -> list[str]:
    """Return the folders visible in a sandbox: programs, libraries, Python and its packages."""
    folders = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/alternatives"]
    packages = [path for path in map(Path, sys.path) if path.name == "site-packages"]
    own = [Path(sys.base_prefix), Path(sys.prefix), _python().parent, *packages]
    folders += ["/etc/ld.so.cache", *(str(path.resolve()) for path in own)]
    return [folder for folder in dict.fromkeys(folders) if os.path.lexists(folder)]


def _command(kind: str, archive: str) -> list[str]:
    """Return the command that runs the archive with Python, in a sandbox."""
    python = str(_python())
    if kind != "bubblewrap":
        return [python, "-I", archive, kind]
    command = [shutil.which("bwrap") or "bwrap", "--die-with-parent", "--new-session"]
    command += ["--unshare-pid", "--unshare-net"]
    command += ["--unshare-ipc", "--unshare-uts", "--proc", "/proc", "--dev", "/dev"]
    for folder in ("/tmp", "/dev/shm"):
        command += ["--perms", "1777", "--size", str(server.FILE), "--tmpfs", folder]
    command += ["--chdir", "/tmp"]
    folders = _folders()
    for folder in folders:
        for parent in reversed(Path(folder).parents[:-1]):  # which another user may pass through
            if str(parent) != "/tmp":
                command += ["--perms", "0755", "--dir", str(parent)]
        if os.path.islink(folder):
            command += ["--symlink", os.readlink(folder), folder]
        else:
            command += ["--ro-bind", folder, folder]
    for path in dict.fromkeys([ROOT, *map(Path, sys.path)]):  # this project, where it is installed
        package = path.resolve() / "codebase"
        if package.is_dir() and any(package.is_relative_to(folder) for folder in folders):
            command += ["--tmpfs", str(package)]
    command += ["--ro-bind", archive, "/grader.pyz", "--remount-ro", "/dev", "--remount-ro", "/"]
    return [*command, python, "-I", "/grader.pyz", kind]


def checked(answer: bytes, told: dict, case: Case) -> Output:
    """Keep only an answer's numbers and texts, in the form that the case expects.

    Args:
        answer: output of the submission's process, not trusted
        told: how the process ended, trusted
        case: the case
    """
    ended = ""
    if told["late"]:
        ended = f"it did not end within {server.WAITING * case.seconds:g} seconds"
    elif told["cpu"] >= 0.9 * case.seconds and told["status"]:
        ended = f"it used {case.seconds:g} seconds of CPU time, perhaps in an infinite loop"
    elif len(answer) > LARGEST_ANSWER:
        ended = "its output is larger than 4 MB"
    elif told["status"]:
        ended = f"its process ended with exit status {told['status']}"
    try:
        found = {} if ended else dict(json.loads(answer))
    except (ValueError, TypeError, RecursionError):
        found, ended = {}, "it returned nothing"
    about: dict = {"cpu": told["cpu"], "printed": _text(found.get("printed"), 1 << 16)}
    if isinstance(missing := found.get("missing"), list):
        about["missing"] = tuple(_text(word, 100) for word in missing[:50])
    if isinstance(broken := found.get("broken"), dict):
        pairs = list(broken.items())[:50]
        about["broken"] = tuple((name, _text(why, 400)) for name, why in pairs)
    calls = found.get("calls")
    if not isinstance(calls, list) or len(calls) != len(case.calls):
        error, kind = found.get("error"), found.get("kind")
        error, kind = _text(error, 400) or ended or "it returned nothing", _text(kind, 100)
        return Output((), error, kind or "Ended", **about)
    kept: list[list[dict] | str] = []
    for call, one in zip(case.calls, calls, strict=True):
        if isinstance(one, dict):
            kept.append(said(_text(one.get("error"), 400), _text(one.get("kind"), 100)))
            continue
        try:
            if len(one) != call.repeat:
                raise ValueError
            kept.append([_numbers(output, call, bool(case.model)) for output in one])
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError):
            kept.append("Your code gave no output: it returned no numbers.")
    return Output(tuple(kept), **about)


def _text(text: object, longest: int) -> str:
    return text[:longest] if isinstance(text, str) else ""


def _numbers(output: dict, call: Call, of_model: bool) -> dict:
    """Keep the numbers of an output: values, shapes, gradients, derivatives w.r.t. the noise."""
    values = [[float(value) for value in term] for term in output["values"]]
    shapes = [[int(size) for size in shape] for shape in output["shapes"]]
    if not values:
        raise ValueError
    for term, shape in zip(values, shapes, strict=True):
        odd = (
            len(shape) > MOST_AXES
            or min(shape, default=0) < 0
            or max(shape, default=0) > MOST_DRAWN
        )
        if odd or len(term) != min(math.prod(shape), MOST_VALUES):
            raise ValueError
    gradients: dict[str, list[float]] = {}
    for name, value in output["gradients"].items():
        gradients[name] = [float(number) for number in value]
        size = 1
        if not of_model and isinstance(spec := call.args[int(name)], Spec):
            size = math.prod(spec.shape)
        if value and len(value) != size:
            raise ValueError
    kept: dict = {"values": values, "shapes": shapes, "gradients": gradients}
    if call.noise is not None:
        kept["noise"] = [[float(number) for number in term] for term in output["noise"]]
        kept["drawn"] = [min(int(count), MOST_DRAWN) for count in output["drawn"][:2]]
        sizes = [len(term) for term in kept["noise"]]
        if sizes != [3] * len(values) or len(kept["drawn"]) != 2:
            raise ValueError
    return kept
