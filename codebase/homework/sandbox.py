"""Where submissions run: processes that see no solution, no other submission, and no network.

bubblewrap gives them a file system of their own. Where it does not work there are only limits, and
`guarantees` says what they do not keep from submissions.
"""

import contextlib
import errno
import io
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
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import ClassVar

from codebase.homework import SANDBOXES, sandboxed
from codebase.homework.cases import Output
from codebase.homework.sandboxed import calling, limits, server
from codebase.homework.sandboxed.calling import Case
from codebase.homework.sandboxed.functions import Helpers
from codebase.project import UserError

END_SECONDS = 5  # in which killed processes are gone
START_SECONDS = 60  # importing torch takes 2, and on a busy machine 20
MEMORY = 3000 << 20  # bytes, of all processes of a sandbox together
# As root: a user id that systemd's table leaves free. Each grading process has its own, because
# the limit on processes counts a user's.
USER = 60_706 + os.getpid() % 478


class SandboxEnded(Exception):
    """The sandbox's own process has ended, or uses too much memory."""


def kind_of_this_machine() -> str:
    """Choose the best kind of sandbox that works here. Raises UserError if none does."""
    for kind in SANDBOXES:
        if _works(kind):
            return kind
    raise UserError(
        f"no sandbox works on this machine: {_bubblewraps_trouble()}; or install Python in a "
        "folder that all users may read"
    )


def wanted(kind: str) -> str:
    """Check that a kind of sandbox works here. Raises UserError if it does not."""
    if not _works(kind):
        why = f" ({_bubblewraps_trouble()})" if kind == "bubblewrap" else ""
        raise UserError(f"--sandbox {kind} does not work on this machine{why}: omit the flag")
    return kind


def guarantees(kind: str) -> str:
    """Say in a line how submissions are kept apart, and what is not guaranteed."""
    if kind == "bubblewrap":
        return (
            "Submissions run in bubblewrap: they see no file of this project or of other "
            "submissions, and no network."
        )
    who = "another user can" if os.geteuid() == 0 else "you can"
    return (
        f"Submissions run only with limits ({_bubblewraps_trouble()}). They CAN read and write "
        f"every file that {who}, perhaps this project's solution."
    )


def _bubblewraps_trouble() -> str:
    """Why bubblewrap does not run here, and what to do."""
    if shutil.which("bwrap") is None:
        return "bubblewrap is not installed: run `apt install bubblewrap`"
    command = [*_command("bubblewrap", os.devnull)[:-3], sys.executable, "-I", "-c", "pass"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
    said = done.stderr.strip().splitlines()
    if not said:
        return "you did not choose bubblewrap" if done.returncode == 0 else "bubblewrap fails"
    return (
        f"bubblewrap fails with {said[-1]!r:.200}; AppArmor (Ubuntu 24.04) or Docker's seccomp "
        "may block user namespaces, which it needs: give bwrap an AppArmor profile with `userns,`, "
        "or run Docker with --security-opt seccomp=unconfined"
    )


def _works(kind: str) -> bool:
    sandbox = Sandbox(kind, "", {})
    try:
        sandbox._open(("--check",))
        return sandbox._receive(START_SECONDS).get("ready") is True
    except (OSError, SandboxEnded) as error:
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise  # not the sandbox's fault
        return False
    finally:
        sandbox.close()


def _environment(kind: str) -> dict[str, str]:
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": "/tmp",
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "GRADER_PROCESSES": str(limits.LIMITS["processes"] + _own_processes()),
    }
    if kind == "bubblewrap":
        environment["GRADER_OWN_PIDS"] = "1"
    if os.geteuid() == 0:
        environment["GRADER_USER"] = str(USER)
    return environment


def _archive() -> bytes:
    """The package `sandboxed` as a zip that Python runs."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for path in sorted(Path(sandboxed.__file__).parent.glob("*.py")):
            archive.write(path, f"sandboxed/{path.name}")
        archive.writestr("__main__.py", "from sandboxed.server import serve\n\nserve()\n")
    return content.getvalue()


def _folders() -> list[str]:
    """What a sandbox sees of the file system: programs and libraries, Python and its packages."""
    folders = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/alternatives"]
    folders += ["/etc/ld.so.cache", sys.base_prefix, sys.prefix]
    folders += [str(path) for path in map(Path, sys.path) if path.name == "site-packages"]
    return [folder for folder in dict.fromkeys(folders) if os.path.lexists(folder)]


def _hidden() -> list[str]:
    """What a sandbox does not see of those folders: the project, if it is installed."""
    installed = [path / "codebase" for path in map(Path, sys.path) if path.name == "site-packages"]
    return [str(folder) for folder in installed if folder.exists()]


def _own_processes() -> int:
    """How many threads there may be that count towards this user's limit; none for root."""
    if os.geteuid() == 0:
        return 0
    return sum(1 for _ in Path("/proc").glob("[0-9]*/task/*"))


def _command(kind: str, archive: str) -> list[str]:
    """The command that runs the archive with Python, in a sandbox."""
    program = shutil.which("bwrap")
    if kind != "bubblewrap":
        return [sys.executable, "-I", archive]
    if program is None:
        raise FileNotFoundError("bwrap")
    command = [program, "--die-with-parent", "--new-session", "--unshare-pid", "--unshare-net"]
    command += ["--unshare-ipc", "--unshare-uts", "--proc", "/proc", "--dev", "/dev"]
    for folder in ("/tmp", "/dev/shm"):
        size = str(limits.LIMITS["file"])
        command += ["--perms", "1777", "--size", size, "--tmpfs", folder]
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
    command += ["--ro-bind", archive, "/grader.pyz"]
    return [
        *command,
        "--remount-ro",
        "/dev",
        "--remount-ro",
        "/",
        sys.executable,
        "-I",
        "/grader.pyz",
    ]


class Sandbox:
    """One submission's processes.

    Args:
        kind: see `codebase.homework.SANDBOXES`
        package: the submission's, "codebase" or "submission"
        sources: its files
    """

    spare: ClassVar["Sandbox | None"] = None  # one that imports torch, for the next submission
    folder: ClassVar[str | None] = None  # for the sandboxes' temporary folders

    def __init__(self, kind: str, package: str, sources: dict[str, str]):
        self.kind = kind
        self._submission = {"package": package, "sources": sources}
        self._process, self._temporary = None, None

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def run(self, case: Case, helpers: Helpers | None = None) -> Output:
        """Run a test case.

        A submission may end its own sandbox: the next case then gets a new one.

        Raises:
            UserError: it does not start, which is not the submission's fault
        """
        try:
            if self._process is None:
                self.start()
            self._send({"case": asdict(case), "helpers": helpers and asdict(helpers)})
            longest = server.WAITING * case.seconds + END_SECONDS + 5
            return checked(self._receive(longest), case)
        except SandboxEnded as ended:
            self.close()
            return Output(None, str(ended), "Ended")

    def ready(self) -> None:
        """Start it, so that the first case does not wait for that."""
        try:
            self.start()
        except (SandboxEnded, UserError):  # the first case tries again, and says why
            self.close()

    def close(self) -> None:
        """End all its processes."""
        process, self._process = self._process, None
        temporary, self._temporary = self._temporary, None
        if process is not None:
            self._end(process)
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)

    def _end(self, process: subprocess.Popen) -> None:
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

    def start(self) -> None:
        """Start its processes.

        Raises:
            UserError: they do not start, before they have seen the submission
            SandboxEnded: they end when they get it
        """
        spare, Sandbox.spare = Sandbox.spare, None
        started = spare is not None and spare.kind == self.kind
        if started:
            self._process, self._temporary = spare._process, spare._temporary
        if not started or self._trouble():
            self.close()
            self._open()
            if trouble := self._trouble():
                raise UserError(f"the sandbox does not start ({trouble}): grade again")
        self._send(self._submission)
        answer = self._receive(START_SECONDS)
        if "files" not in answer:
            raise SandboxEnded(f"the sandbox cannot read the submission: {answer.get('error')}")

    def _trouble(self) -> str:
        """Why the first process is not ready; empty if it is."""
        try:
            answer = self._receive(START_SECONDS)
        except SandboxEnded:
            return "its first process is not ready"
        return "" if "ready" in answer else str(answer.get("error"))

    @classmethod
    def prepare(cls, kind: str) -> None:
        """Start the processes for the next submission: importing torch takes them 2 seconds."""
        cls.spare = cls(kind, "", {})
        cls.spare._open()

    @classmethod
    def discard(cls) -> None:
        """End the processes that were prepared, if no submission has taken them."""
        spare, cls.spare = cls.spare, None
        if spare is not None:
            spare.close()

    def _open(self, arguments: tuple[str, ...] = ()) -> None:
        """Start its first process."""
        environment = _environment(self.kind)
        self._temporary = tempfile.mkdtemp(prefix="grader-", dir=self.folder)
        archive = Path(self._temporary, "grader.pyz")
        archive.write_bytes(_archive())
        archive.chmod(0o644)  # another user reads it, whatever the umask
        if user := environment.get("GRADER_USER"):
            os.chown(self._temporary, int(user), int(user))
        if self.kind == "limits":
            environment["TMPDIR"] = environment["HOME"] = self._temporary
        self._process = subprocess.Popen(
            [*_command(self.kind, str(archive)), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )

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
                raise SandboxEnded(f"it did not end within {seconds:g} seconds")
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
                if wanted > 2 * limits.LIMITS["output"]:
                    raise SandboxEnded("its output is larger than 8 MB")
        try:
            message = json.loads(bytes(content[4:wanted]))
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            raise SandboxEnded("the submission ended its sandbox")
        return message


def runs(pid: int) -> bool:
    """Whether a process is still running; a zombie is not."""
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2][:1] not in (b"Z", b"X")
    return False


def checked(answer: dict, case: Case) -> Output:
    """Keep only numbers and texts of an answer, of the form that the case has.

    The submission may have written what comes out of a sandbox: it cannot be trusted.
    """
    printed, missing, broken, cpu = (
        answer.get(key) for key in ("printed", "missing", "broken", "cpu")
    )
    about = {"printed": printed if isinstance(printed, str) else ""}
    if isinstance(missing, list):
        about["missing"] = tuple(word for word in missing[:50] if isinstance(word, str))
    if isinstance(broken, dict):
        pairs = list(broken.items())[:50]
        about["broken"] = tuple((name, why) for name, why in pairs if isinstance(why, str))
    about["cpu"] = float(cpu) if type(cpu) is float and 0 <= cpu < 1e6 else 0.0
    try:
        calls = [
            [_numbers(output, case, i) for output in outputs]
            for i, outputs in enumerate(answer["calls"])
        ]
        if [len(outputs) for outputs in calls] != [call.repeat for call in case.calls]:
            raise ValueError
        return Output(calls, **about)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError):
        unknown = "it returned no numbers" if "calls" in answer else "it returned nothing"
        error, kind = answer.get("error"), answer.get("kind")
        error = error if isinstance(error, str) else unknown
        return Output(None, error, kind if isinstance(kind, str) else "Ended", **about)


def _numbers(output: dict, case: Case, i: int) -> dict:
    """One output: values and shapes of its terms, gradients, and derivatives by the noise."""
    values = [[float(value) for value in term] for term in output["values"]]
    shapes = [[int(size) for size in shape] for shape in output["shapes"]]
    for term, shape in zip(values, shapes, strict=True):
        if min(shape, default=0) < 0 or len(term) != min(math.prod(shape), calling.MOST_VALUES):
            raise ValueError
    gradients = {}
    for name, value in (output.get("gradients") or {}).items():
        if value is None:
            gradients[name] = None
        elif case.model:
            gradients[name] = float(value)
        else:
            gradients[name] = [float(number) for number in value]
            if len(value) != math.prod(case.calls[i].args[int(name)].shape):
                raise ValueError
    kept = {"values": values, "shapes": shapes, "gradients": gradients}
    if case.calls[i].noise is not None:
        kept["noise"] = [
            [float(number) for number in term[: calling.MOST_NOISE]]
            for term in output["noise"][: calling.MOST_TERMS]
        ]
        kept["drawn"] = int(output["drawn"])
    return kept


def descendants(process: int) -> list[int]:
    """List a process's children, and theirs."""
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
    """Count the bytes of memory that processes hold, without the files that they have mapped."""
    total = 0
    for pid in processes:
        with contextlib.suppress(OSError, IndexError, ValueError):
            for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
                if line.startswith(("RssAnon:", "RssShmem:")):
                    total += int(line.split()[1]) << 10
    return total
