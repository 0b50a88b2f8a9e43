"""Grading as teaching assistants do it: real submissions in real sandboxes."""

import csv
import json
import os
import socket
import subprocess
import sys
import textwrap
import time
import zipfile
from contextlib import closing
from pathlib import Path

import pytest
import students
from conftest import NO_NETWORK, Child, refused, run_python
from hostile import HOSTILE, SPIES

from codebase import ROOT, UserError
from codebase.homework import cases, gradescope, grading, problems, report, sandbox, submission
from codebase.homework.problems import PROBLEMS
from codebase.homework.sandbox import Sandbox
from codebase.homework.submission import Entry

pytestmark = pytest.mark.sandbox
POINTS = {problem.function: problem.points for problem in PROBLEMS}
FUNCTIONS = list(POINTS)
SHARED = ROOT.parent / "shared" / "grading"
AS_ROOT = pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="needs root")


@pytest.fixture(scope="module")
def box():
    """One sandbox for all submissions, as in a grading process."""
    with Sandbox("bubblewrap") as box:
        yield box


def graded(tmp_path: Path, files: dict, box: Sandbox) -> report.Found:
    root = students.folder(tmp_path / "student", files)
    return grading.grade_code(submission.read(Entry(root)), problems.POINTS, box)


def scores(found: report.Found) -> dict[str, float]:
    return {mark.question.key: mark.score for mark in found.marks}


def told(found: report.Found) -> dict[str, str]:
    return {mark.question.key: " ".join(mark.said) for mark in found.marks}


# Right answers, and wrong ones


@pytest.mark.parametrize("number", range(max(map(len, students.RIGHT.values()))))
def test_other_ways_to_be_right_get_full_points(tmp_path, box, number):
    bodies = {f: right[number] for f, right in students.RIGHT.items() if number < len(right)}
    found = graded(tmp_path, students.homework(bodies), box)
    assert scores(found) == POINTS, report.table(found)


def test_the_solution_itself_gets_full_points(box):
    handed_in = submission.read(Entry(ROOT / "codebase"))
    found = grading.grade_code(handed_in, problems.POINTS, box)
    assert scores(found) == POINTS, report.table(found)


def answers(kind: str) -> list[list[str]]:
    table = SHARED / f"{kind}.tsv"
    if not table.exists():
        pytest.skip("../shared/grading is not there")
    return [line.split("\t") for line in table.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("part", range(4))
def test_right_answers_of_others_get_full_points(box, part):
    for name, *_ in answers("right")[part::4]:
        handed_in = submission.read(Entry(SHARED / "right" / f"{name}.zip"))
        found = grading.grade_code(handed_in, problems.POINTS, box)
        wrong = {mark.question.key for mark in found.marks if mark.lost}
        blank = {key for key, said in told(found).items() if "NotImplementedError" in said}
        assert wrong == blank and (not blank or name == "r24"), (name, report.table(found))


EITHER = {"w53": "GMVAE.negative_elbo_bound"}  # which does not fit its mixture
UNSEEN = {"w75"}  # noise that is clamped at three standard deviations


@pytest.mark.parametrize("part", range(4))
def test_wrong_answers_of_others_lose_points(box, part, monkeypatch):
    for name, function, _ in answers("wrong")[part::4]:
        wanted = {function, EITHER.get(name)}
        monkeypatch.setattr(grading, "ORDER", [p for p in PROBLEMS if p.function in wanted])
        handed_in = submission.read(Entry(SHARED / "wrong" / f"{name}.zip"))
        found = grading.grade_code(handed_in, problems.POINTS, box)
        wrong = {mark.question.key for mark in found.marks if mark.lost}
        if name not in UNSEEN:
            assert EITHER.get(name, function) in wrong, (name, report.table(found))


WIRED = """
    m, v = self.enc.encode(x)
    z = m + v.sqrt() * torch.randn(100, self.z_dim)
    kl = ut.kl_normal(m, v, *self.z_prior).mean()
    rec = -ut.log_bernoulli_with_logits(x, self.dec.decode(z)).mean()
    return kl + rec, kl, rec
    """
WRONG_NORMAL = """
    return (-0.5 * (np.log(2 * np.pi) + torch.log(v) + (x - m) ** 2 / v)).mean(-1)
    """


def test_submissions_as_they_are(tmp_path, box):
    """Each trouble costs what it should, once, and says so."""
    bodies = {
        "sample_gaussian": "print('hello')\n"
        + textwrap.dedent(students.RIGHT["sample_gaussian"][0]),
        "VAE.negative_elbo_bound": WIRED,
        "log_normal": WRONG_NORMAL,
        "SSVAE.negative_elbo_bound": "raise NotImplementedError",
        "FSVAE.negative_elbo_bound": "return nelbo, kl, rec",
    }
    files = students.homework(bodies)
    files["codebase/utils.py"] = "\ufeffimport debug\n" + files["codebase/utils.py"]
    files["codebase/models/gmvae.py"] += "\n    def broken(:\n"
    files = {name: content.replace("\n", "\r\n") for name, content in files.items()}
    found = graded(tmp_path, files, box)
    assert scores(found) == POINTS | {
        "VAE.negative_elbo_bound": 5.4,
        "log_normal": 1.6,
        "GMVAE.negative_elbo_bound": 0,
        "GMVAE.negative_iwae_bound": 0,
        "SSVAE.negative_elbo_bound": 0,
        "FSVAE.negative_elbo_bound": 0,
    }
    said = told(found)
    assert "You average over the last dimension; sum over it." in said["log_normal"]
    assert "only for batches of 100" in said["VAE.negative_elbo_bound"]
    assert "your helper functions (log_normal)" in said["VAE.negative_iwae_bound"]
    assert "SyntaxError (codebase/models/gmvae.py:" in said["GMVAE.negative_iwae_bound"]
    version = f"Python {sys.version_info.major}.{sys.version_info.minor}"
    assert f"the grader runs {version}" in said["GMVAE.negative_iwae_bound"]
    assert "is not written yet" in said["SSVAE.negative_elbo_bound"]
    assert "'nelbo' is not defined" in said["FSVAE.negative_elbo_bound"]
    assert "does not have: debug." in " ".join(found.notes)
    assert "hello" in found.printed


HABITS = """
import os
import torch
import wandb as w
import tensorflow as tf
import matplotlib.pyplot as plt
import antigravity_missing
from jaxtyping import Float
from scipy import constants
from torch.utils.tensorboard import SummaryWriter
plt.rcParams['figure.figsize'] = (10, 8)
writer = SummaryWriter('logs')
print('tf', tf.__version__)
with tf.device('x') as d: len(d)
def show(x, ax: w.Axes | None = None): pass
def h(x: Float[torch.Tensor, 'b d']): pass
@antigravity_missing.jit
def helper(x):
    return x
@torch.jit.script
def combine(a, b):
    return a + b
torch.set_default_dtype(torch.float64)
torch.set_num_threads(8)
compiled = torch.compile(lambda x: x * constants.pi / constants.pi, mode="max-autotune")
"""


def test_habits_cost_nothing(tmp_path, box):
    """Settings for one's own machine, a compiler, packages that are not here."""
    body = "    return compiled(torch.distributions.Normal(m, v.sqrt()).log_prob(x).sum(-1))"
    files = students.homework({"log_normal": body})
    files["codebase/utils.py"] = HABITS + files["codebase/utils.py"]
    name = "codebase/models/vae.py"
    files[name] = files[name].replace("    def neg", "    @torch.compile\n    def neg")
    found = graded(tmp_path, files, box)
    assert scores(found) == POINTS, report.table(found)
    assert "torch," not in found.notes[0] and "scipy" not in found.notes[0]


def changed(file: str, old: str, new: str, bodies=None) -> dict[str, str]:
    files = students.homework(bodies)
    assert old in files[file]
    return files | {file: files[file].replace(old, new)}


@pytest.mark.parametrize(
    ("files", "lost"),
    [
        (changed("codebase/utils.py", "(0.5 * (torch.log(pv)", "(1.0 * (torch.log(pv)"), ()),
        (changed("codebase/utils.py", "F.softplus(h)", "torch.exp(h)"), ()),
        (changed("codebase/models/nns/v1.py", "y_dim, 300), nn.ELU", "y_dim, 300), nn.Tanh"), ()),
        (students.homework({"log_normal_mixture": "os._exit(1)"}), ("log_normal_mixture",)),
        (
            students.homework() | {"codebase/utils.py": "def sample_gaussian(m, v:\n"},
            ("sample_gaussian", "log_normal", "log_normal_mixture"),
        ),
    ],
)
def test_a_wrong_helper_costs_itself_alone(tmp_path, box, files, lost):
    found = graded(tmp_path, files, box)
    assert {mark.question.key for mark in found.marks if mark.lost} == set(lost), told(found)
    assert "lose no points" in " ".join(told(found).values())


def test_the_successor_courses_package(tmp_path, box):
    assert scores(graded(tmp_path, students.homework(package="submission"), box)) == POINTS


# The sandbox


def hostile_bodies(wanted: dict[str, str], port: int) -> list[dict[str, str]]:
    """Submissions with a hostile body in each of their functions but the last ones."""
    head = f"import os, sys, torch\nPORT, PREFIX, HERE = {port}, sys.prefix, {str(ROOT)!r}\n"
    bodies = [head + textwrap.dedent(body) for body in wanted.values()]
    places = ["log_normal", "sample_gaussian", "VAE.negative_elbo_bound"]
    places += ["log_normal_mixture", "GMVAE.negative_iwae_bound", "SSVAE.negative_elbo_bound"]
    return [
        dict(zip(places, bodies[begin : begin + len(places)], strict=False))
        for begin in range(0, len(bodies), len(places))
    ]


def sandboxed() -> list[str]:
    """The processes of submissions that are still there, but for the first one."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            lines = dict(
                line.split(":\t", 1) for line in status.read_text(encoding="utf-8").splitlines()
            )
        except (OSError, ValueError):
            continue
        if 60_706 <= int(lines["Uid"].split()[0]) < 61_184 and lines["State"][0] not in "ZX":
            found.append(lines["Name"])
    return found


def grade_hostile(tmp_path: Path, wanted: dict[str, str], box: Sandbox) -> None:
    """Grade hostile submissions: none gains a point, or costs another function one."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        server.settimeout(0)
        for number, bodies in enumerate(hostile_bodies(wanted, server.getsockname()[1])):
            outside = sorted(path.name for path in tmp_path.iterdir())
            found = graded(tmp_path / str(number), students.homework(bodies), box)
            assert scores(found) == POINTS | dict.fromkeys(bodies, 0), report.table(found)
            assert "LEAK" not in report.table(found)
            assert len(report.results(found)) < 100_000
            assert outside == sorted(p.name for p in tmp_path.iterdir() if p.name != str(number))
            assert len(sandboxed()) <= 1
        if "network" in wanted:
            with pytest.raises(BlockingIOError):  # nobody called
                server.accept()


@AS_ROOT
def test_hostile_submissions_gain_nothing(tmp_path, box, monkeypatch):
    monkeypatch.setattr(cases, "SECONDS", 2)
    monkeypatch.setattr(cases, "MANY_SECONDS", 5)
    grade_hostile(tmp_path, HOSTILE | SPIES, box)


@AS_ROOT
def test_in_a_container_another_user_runs_submissions(tmp_path, monkeypatch):
    """The project cannot be read by that user; a project that can is refused."""
    monkeypatch.setattr(cases, "SECONDS", 3)
    names = ("kills everybody", "child that stays", "sys.exit", "forged results")
    spies = ("root", "writing", "parent's memory", "parent's pipes", "what an earlier case left")
    wanted = {name: (HOSTILE | SPIES)[name] for name in (*names, *spies)}
    hidden = tmp_path / "hidden"
    hidden.mkdir(mode=0o700)
    monkeypatch.setattr(sandbox, "ROOT", hidden)
    try:
        sandbox.check("container")
    except UserError as error:
        pytest.skip(str(error))
    with Sandbox("container") as box:
        grade_hostile(tmp_path, wanted, box)
        assert scores(graded(tmp_path, students.homework(), box)) == POINTS
    hidden.chmod(0o755)
    tmp_path.chmod(0o755)
    if not all(os.stat(folder).st_mode & 0o001 for folder in hidden.parents):
        return  # the folder of the tests is hidden
    with pytest.raises(UserError, match="chmod go-rwx"):
        sandbox.check("container")


ATTACKS = {
    "limits": "import ctypes; limit = (ctypes.c_ulong * 2)(9, 9)\n"
    "ctypes.CDLL(None).prlimit(os.getppid(), 0, limit, None)",
    "pipes": "import fcntl\nfor f in range(64):\n    try: fcntl.fcntl(f, 4, fcntl.fcntl(f, 3) | "
    "os.O_NONBLOCK); fcntl.fcntl(f, 1031, 4096)\n    except OSError: pass",
    "folders": "os.makedirs('/tmp/' + '/'.join(['d'] * 150), exist_ok=True)",
    "signals": "import fcntl, struct\nfor f in range(3, 64):\n    try: fcntl.fcntl(f, 1031, 4096);"
    " fcntl.fcntl(f, 8, os.getppid()); fcntl.fcntl(f, 10, 9); fcntl.fcntl(f, 4, 0o22001)\n"
    "    except OSError: pass\nos._exit(0)",
    "space": "open('/tmp/x', 'wb').write(bytes(31 << 20)); open('/dev/shm/x', 'wb').write(b'1')",
}


@AS_ROOT
@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_costs_another_submission_nothing(tmp_path, box, name):
    body = f"import os\n{ATTACKS[name]}\nreturn torch.zeros(())"
    bodies = dict.fromkeys(["sample_gaussian", "FSVAE.negative_elbo_bound"], body)
    found = graded(tmp_path / "evil", students.homework(bodies), box)
    assert not any(scores(found)[function] for function in bodies)
    assert scores(graded(tmp_path / "good", students.homework(), box)) == POINTS


def test_what_is_said_with_helpers_holds_no_source(tmp_path, box):
    """A function that is right with given helpers, and raises what it finds in them elsewhere."""
    name = "VAE.negative_elbo_bound"
    body = "if not hasattr(ut, '_log_normal_all_pairs'): return torch.zeros(3).unbind()\n"
    body += "if len(x) != 7: raise ValueError('SOURCE')\n"
    body += textwrap.dedent(students.RIGHT[name][0])
    found = graded(tmp_path, students.homework({name: body}), box)
    assert 0 < scores(found)[name] < POINTS[name]
    assert "SOURCE" not in report.table(found) and "helper functions" in told(found)[name]


def test_code_that_runs_on_import_is_ended(tmp_path, box, monkeypatch):
    monkeypatch.setattr(cases, "SECONDS", 1)
    files = students.homework()
    files["codebase/models/ssvae.py"] += "\nwhile True: pass\n"
    files["codebase/models/fsvae.py"] += "\nimport os; os._exit(0)\n"
    begun = time.monotonic()
    found = graded(tmp_path, files, box)
    assert time.monotonic() - begun < 60
    wrong = {"SSVAE.negative_elbo_bound": 0, "FSVAE.negative_elbo_bound": 0}
    assert scores(found) == POINTS | wrong


def test_one_sandbox_outlives_its_submissions(tmp_path, box):
    """A second submission gets the first process of the first one, which is still there."""
    box.start()
    first = box._process.pid
    for number in range(2):
        graded(tmp_path / str(number), students.homework(), box)
    assert box._process.pid == first
    box._process.kill()  # as something that an earlier submission has left may do
    assert scores(graded(tmp_path / "again", students.homework(), box)) == POINTS
    ending = {"log_normal": SPIES["root"], "sample_gaussian": HOSTILE["kills its parent"]}
    files = students.homework(ending)
    files["codebase/utils.py"] = "import os, sys\n" + files["codebase/utils.py"]
    graded(tmp_path / "2", files, box)
    assert box._process.pid != first
    assert scores(graded(tmp_path / "3", students.homework(), box)) == POINTS


def test_an_environment_beside_the_project_is_found(tmp_path, monkeypatch):
    """As ../venv/bin/python: bubblewrap has no folders with dots or links in them."""
    environment = Path(sys.executable).parent
    (tmp_path / "linked").symlink_to(environment.parent)
    odd = tmp_path / "x" / ".." / "linked" / "bin" / Path(sys.executable).name
    (tmp_path / "x").mkdir()
    monkeypatch.setattr(sys, "executable", str(odd))
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "linked"))
    sandbox.check("bubblewrap")


def test_why_bubblewrap_fails_is_said(tmp_path, monkeypatch):
    """Ubuntu 24.04 forbids user namespaces through AppArmor, Docker through seccomp."""
    fake = tmp_path / "bwrap"
    fake.write_text(
        "#!/bin/sh\necho 'bwrap: loopback: Failed RTM_NEWADDR: not permitted' >&2\nexit 1\n",
        encoding="utf-8",
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(UserError, match="RTM_NEWADDR.*AppArmor"):
        sandbox.check("bubblewrap")
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(UserError, match="apt install bubblewrap"):
        sandbox.check("bubblewrap")


def test_a_sandbox_that_does_not_start_costs_no_points(tmp_path, monkeypatch):
    """The submission counts as not graded, so the same command grades it again."""
    path = students.zipped(tmp_path / "ada.zip", students.homework())
    settings, out = grading.Settings(problems.POINTS, "bubblewrap"), tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(sandbox, "_command", lambda *args: ["false"])
        [(found, _)] = grading.grade_all({"ada": Entry(path)}, settings, out, 1)
        assert "the sandbox does not start" in found.ungraded and not found.marks
    [(found, _)] = grading.grade_all({"ada": Entry(path)}, settings, out, 1)
    assert found.ungraded == "" and found.score == sum(POINTS.values())


# A class


def read_grades(out: Path) -> dict[str, dict[str, str]]:
    with (out / "grades.csv").open(encoding="utf-8-sig", newline="") as file:
        return {row["submission"]: row for row in csv.DictReader(file)}


def test_a_class(tmp_path):
    folder, out = tmp_path / "class", tmp_path / "grades"
    folder.mkdir()
    right = students.homework()
    renamed = {
        name: text.replace("y_logprob", "lq").replace("rec =", "rec  =  ")
        for name, text in right.items()
    }
    students.zipped(folder / "ada.zip", right)
    students.zipped(folder / "copy.zip", renamed)
    students.zipped(folder / "=eve.zip", students.homework({"log_normal": WRONG_NORMAL}))
    hostile = students.homework(dict.fromkeys(FUNCTIONS[5:], "import os; os._exit(1)"))
    students.zipped(folder / "hostile.zip", hostile)
    (folder / "gone.zip").symlink_to(folder / "nowhere.zip")
    (folder / "broken.zip").write_text("no zip", encoding="utf-8")
    (folder / "notes.txt").write_text("no submission", encoding="utf-8")
    (folder / "__MACOSX").mkdir()
    command = ["codebase", "grade", folder, "--out", out, "--jobs", 2]
    done = run_python(ROOT, "-m", *map(str, command))
    assert done.returncode == 0 and "Summary: " in done.stdout, done.stderr
    rows = read_grades(out)
    totals = {name: row["total"] for name, row in rows.items()}
    assert totals == {
        **{"ada": "56", "copy": "56", "'=eve": "53.6", "hostile": "28", "gone": "", "broken": ""}
    }
    assert float(rows["'=eve"]["log_normal"]) == 1.6 and "not graded" in rows["gone"]["note"]
    page = (out / "summary.md").read_text(encoding="utf-8")
    assert "Submissions: 4. Median: 54.8 points, with the bonus." in page
    assert "| `log_normal` | You average over the last dimension; sum over it. | 1 | =eve |" in page
    assert "- =eve, ada, copy: " in page and "to 100%" in page
    assert "hostile" not in page.split("## Similarity")[1]
    assert (
        "notes.txt: skipped" in done.stderr
        and "notes.txt" in page.split("## Entries to look at")[1]
    )
    assert "broken: broken.zip: it cannot be read" in page.split("## Not graded")[1]
    assert (out / "points.png").read_bytes().startswith(b"\x89PNG")
    assert "**52 of 52, and 4 bonus points**" in (out / "ada" / "report.md").read_text(
        encoding="utf-8"
    )
    assert "score" not in json.loads((out / "gone" / "results.json").read_text(encoding="utf-8"))
    # The same command grades what has changed, and draws all reports again.
    cached = {path.name: path.stat().st_mtime_ns for path in (out / ".cache").iterdir()}
    before = (out / "ada" / "report.md").read_bytes()
    (out / "ada" / "report.md").write_text("edited", encoding="utf-8")
    students.zipped(folder / "=eve.zip", right)
    assert run_python(ROOT, "-m", *map(str, command)).returncode == 0
    assert (out / "ada" / "report.md").read_bytes() == before
    now = {path.name: path.stat().st_mtime_ns for path in (out / ".cache").iterdir()}
    assert {name for name in now if now[name] != cached.get(name)} == {"=eve.json"}
    assert read_grades(out)["'=eve"]["total"] == "56"


def test_interrupted_grading_leaves_nothing_behind(tmp_path):
    path = students.zipped(tmp_path / "slow.zip", students.homework({"log_normal": "while 1: 0"}))
    child = Child(tmp_path, "codebase", "grade", path)
    child.wait_until(lambda: len(sandboxed_by(child.process.pid)) > 1)
    below = sandboxed_by(child.process.pid)
    os.kill(child.process.pid, 2)
    status, _, stderr = child.finish()
    assert status == 130 and "stopped" in stderr
    deadline = time.monotonic() + 5
    while any(map(runs, below)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(map(runs, below))


def sandboxed_by(process: int) -> list[int]:
    """The processes below a process."""
    found = [process]
    for pid in found:
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
        except OSError:
            continue
        found += map(int, children.split())
    return found[1:]


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2][:1] not in (b"Z", b"X")
    except OSError:
        return False


def test_what_cannot_be_graded_is_refused_in_a_line(tmp_path):
    one, other = tmp_path / "1" / "a.zip", tmp_path / "2" / "a.zip"
    for path in (one, other):
        path.parent.mkdir()
        students.zipped(path, students.homework())
    points = tmp_path / "points.json"
    points.write_text('{"x": 1}', encoding="utf-8")
    folder = students.folder(tmp_path / "class", {"ada.zip": b"x", "bob.zip": b"x"})
    for flags, reason in (
        ([tmp_path / "missing.zip"], "there is no such zip or folder"),
        ([one, other], "have the same name"),
        ([one, "--points", points], "'x' is not one of"),
        ([one, "--jobs", "0"], "argument --jobs"),
        ([one, "--sandbox", "limits"], "argument --sandbox"),
        ([folder, "--out", folder / "new"], "is inside"),
        ([one, "--out", points], "is a file"),
        ([], "submissions"),
    ):
        assert reason in refused(tmp_path, "codebase", "grade", *flags)


# Gradescope


def test_gradescopes_layout(tmp_path):
    """As /autograder is laid out, under another root. What is not graded has no results."""
    gradescope.make(tmp_path / "autograder.zip", None, 1, 0)
    root = tmp_path / "autograder"
    with zipfile.ZipFile(tmp_path / "autograder.zip") as archive:
        assert archive.getinfo("run_autograder").external_attr >> 16 & 0o111 == 0o111
        archive.extractall(root / "source")
    script = (root / "source" / "run_autograder").read_text(encoding="utf-8")
    (root / "run_autograder").write_text(script, encoding="utf-8")
    (root / "run_autograder").chmod(0o755)
    (root / "results").mkdir()
    results = root / "results" / "results.json"
    for name in ("setup.sh", "run_autograder"):
        subprocess.run(["bash", "-n", str(root / "source" / name)], check=True)
    died = tmp_path / "python"
    died.write_text("#!/bin/sh\nkill -9 $$\n", encoding="utf-8")
    died.chmod(0o755)
    forge = f"open({str(results)!r}, 'w').write('{{\"score\": 99}}')"
    half = dict.fromkeys(FUNCTIONS[4:], "raise NotImplementedError")
    hostile = students.homework(half | dict.fromkeys(FUNCTIONS[5:7], forge))
    pages = {"notebook.ipynb": "{}"}
    for files, python, score in (
        (pages, died, None),
        (pages, sys.executable, None),
        (students.homework(), sys.executable, 56),
        (hostile, sys.executable, 21),
    ):
        subprocess.run(["rm", "-rf", str(root / "submission")], check=True)
        students.folder(root / "submission", files)
        environment = os.environ | NO_NETWORK | {"GRADER_PYTHON": str(python)}
        done = subprocess.run(
            ["./run_autograder"], cwd=root, env=environment, capture_output=True, timeout=300
        )
        assert results.exists() is (score is not None), done.stderr
        assert (done.returncode == 0) is (score is not None)
        if score is not None:
            found = json.loads(results.read_text(encoding="utf-8"))
            assert found["score"] == score == sum(test["score"] for test in found["tests"])
