"""Grading as teaching assistants do it: real submissions in real sandboxes."""

import contextlib
import csv
import json
import os
import shutil
import socket
import subprocess
import sys
import textwrap
import time
import zipfile
from pathlib import Path

import pytest
import students
from conftest import NO_NETWORK, Child, refused, run_python, succeed
from hostile import HOSTILE, SPIES

from codebase import ROOT, UserError
from codebase.homework import gradescope, grading, marking, problems, report, sandbox, submission
from codebase.homework.problems import BY_KEY, PROBLEMS
from codebase.homework.sandbox import Sandbox
from codebase.homework.submission import Entry, Submission

pytestmark = pytest.mark.sandbox
POINTS = {problem.key: problem.points for problem in PROBLEMS}
FUNCTIONS = list(POINTS)
SHARED = ROOT.parent / "shared" / "grading"
AS_ROOT = pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="needs root")


@pytest.fixture(scope="module")
def box():
    """One sandbox for all submissions, as in a grading process."""
    with Sandbox("bubblewrap") as box:
        yield box


def graded(files: dict[str, str], box: Sandbox) -> report.Found:
    return grading.grade_code(Submission("student", sources=files), problems.POINTS, box)


def scores(found: report.Found) -> dict[str, float]:
    return {mark.question.key: mark.score for mark in found.marks}


def lost(found: report.Found) -> set[str]:
    return {mark.question.key for mark in found.marks if mark.lost}


def told(found: report.Found) -> dict[str, str]:
    return {mark.question.key: " ".join(mark.said) for mark in found.marks}


# Right answers, and wrong ones


def answers(kind: str) -> list[list[str]]:
    """Rows of answers that others have written: a name, and for a wrong one the function."""
    table = SHARED / f"{kind}.tsv"
    text = table.read_text(encoding="utf-8") if table.exists() else ""
    return [line.split("\t")[:2] for line in text.splitlines()]


@pytest.mark.parametrize("number", range(max(map(len, students.RIGHT.values()))))
def test_right_bodies_get_full_points(box, number):
    bodies = {f: right[number] for f, right in students.RIGHT.items() if number < len(right)}
    found = graded(students.homework(bodies), box)
    assert scores(found) == POINTS, report.table(found)


@pytest.mark.parametrize("name", ["the solution", *(name for name, _ in answers("right"))])
def test_right_answers_of_others_get_full_points(box, name):
    path = SHARED / "right" / f"{name}.zip" if name != "the solution" else ROOT / "codebase"
    found = grading.grade_code(submission.read(Entry(path)), problems.POINTS, box)
    blank = {key for key, said in told(found).items() if "NotImplementedError" in said}
    assert lost(found) == blank and (not blank or name == "r24"), report.table(found)


EITHER = {"w53": "GMVAE.negative_elbo_bound"}  # which does not fit its mixture
UNSEEN = {"w75"}  # noise that is clamped at three standard deviations


@pytest.mark.parametrize(("name", "function"), answers("wrong"))
def test_wrong_answers_of_others_lose_points(box, name, function):
    handed_in = submission.read(Entry(SHARED / "wrong" / f"{name}.zip"))

    def run(case, helpers):
        return box.run(handed_in.helped(helpers or {}, ()), case)

    problem = BY_KEY[EITHER.get(name, function)]
    marked = marking.mark(problem, problem.points, run)
    assert bool(marked.lost) or name in UNSEEN, marked.said


WIRED = """
    m, v = self.enc.encode(x)
    z = m + v.sqrt() * torch.randn(100, self.z_dim)
    kl = ut.kl_normal(m, v, *self.z_prior).mean()
    rec = -ut.log_bernoulli_with_logits(x, self.dec.decode(z)).mean()
    return kl + rec, kl, rec
    """
WRONG_NORMAL = "return (-0.5 * (np.log(2 * np.pi) + torch.log(v) + (x - m) ** 2 / v)).mean(-1)"


def test_submissions_as_they_are(box):
    """Each trouble costs what it should, once, and says so."""
    files = students.homework(
        {
            "sample_gaussian": "print('hello'); " + students.RIGHT["sample_gaussian"][0].strip(),
            "VAE.negative_elbo_bound": WIRED,
            "log_normal": WRONG_NORMAL,
            "SSVAE.negative_elbo_bound": "raise NotImplementedError",
            "FSVAE.negative_elbo_bound": "return nelbo, kl, rec",
        }
    )
    files["codebase/utils.py"] = "import debug\n" + files["codebase/utils.py"]
    files["codebase/models/gmvae.py"] += "\n    def broken(:\n"
    found = graded(files, box)
    none = ("GMVAE.negative_elbo_bound", "GMVAE.negative_iwae_bound")
    none += ("SSVAE.negative_elbo_bound", "FSVAE.negative_elbo_bound")
    expected = POINTS | {"VAE.negative_elbo_bound": 5.4, "log_normal": 1.6}
    assert scores(found) == expected | dict.fromkeys(none, 0), report.table(found)
    for function, sentence in (
        ("log_normal", "You average over the last dimension; sum over it."),
        ("VAE.negative_elbo_bound", "only for batches of 100"),
        ("VAE.negative_iwae_bound", "your helper functions (log_normal); you lose no points"),
        ("GMVAE.negative_iwae_bound", "SyntaxError (codebase/models/gmvae.py:"),
        ("GMVAE.negative_iwae_bound", f"the grader runs Python 3.{sys.version_info.minor}"),
        ("SSVAE.negative_elbo_bound", "is not written yet"),
        ("FSVAE.negative_elbo_bound", "'nelbo' is not defined"),
    ):
        assert sentence in told(found)[function], told(found)[function]
    assert "does not have: debug." in " ".join(found.notes)
    assert "hello" in found.printed


HABITS = """
import torch
import wandb as w
import tensorflow as tf
import matplotlib.pyplot as plt
import antigravity_missing
try:
    from another_missing import repeat
except ImportError:
    repeat = torch.Tensor.repeat
repeat(torch.zeros(1), 2) + 1
from scipy import constants
from torch.utils.tensorboard import SummaryWriter
plt.rcParams['figure.figsize'] = (10, 8)
writer = SummaryWriter('logs')
print('tf', tf.__version__)
with tf.device('x') as d: len(d)
def show(x, ax: w.Axes | None = None): pass
@antigravity_missing.jit
def helper(x):
    return x
torch.set_default_dtype(torch.float64)
torch.set_num_threads(8)
compiled = torch.compile(lambda x: x * constants.pi / constants.pi, mode="max-autotune")
from submission.models.gmvae import GMVAE
"""


def test_habits_cost_nothing(box):
    """Settings for one's own machine, a compiler, packages that are not here.

    As in the homework of 2021, utils.py imports the models and no model has a beta; as in its
    successor's, the package is `submission`.
    """
    body = "    return compiled(torch.distributions.Normal(m, v.sqrt()).log_prob(x).sum(-1))"
    files = students.homework({"log_normal": body}, package="submission")
    files["submission/utils.py"] = HABITS + files["submission/utils.py"]
    name = "submission/models/vae.py"
    files[name] = files[name].replace("    def neg", "    @torch.compile\n    def neg")
    files[name] = files[name].replace("self.beta = beta", "pass")
    handed_in = Submission("student", "submission", files)
    found = grading.grade_code(handed_in, problems.POINTS, box)
    assert scores(found) == POINTS, report.table(found)
    assert "torch," not in found.notes[0] and "scipy" not in found.notes[0]


@pytest.mark.parametrize(
    ("file", "old", "new", "wrong"),
    [
        ("utils.py", "return 0.5 * (pv.log()", "return 1.0 * (pv.log()", ()),
        ("utils.py", "F.softplus(h)", "torch.exp(h)", ()),
        ("models/nns/v1.py", "2 * z_dim, nn.ELU", "2 * z_dim, nn.SELU", ()),
        ("models/nns/v1.py", "300", "400", ()),  # larger networks
        ("utils.py", "def sample_gaussian(", "def sample(", ("sample_gaussian",)),
        ("utils.py", "z = z.unsqueeze(1)", "import os; os._exit(1)", ("log_normal_mixture",)),
        ("utils.py", "def log_normal(", "def log_normal(:", ("sample_gaussian", *FUNCTIONS[2:4])),
    ],
)
def test_a_wrong_helper_costs_itself_alone(box, file, old, new, wrong):
    files = students.homework()
    assert old in files[f"codebase/{file}"]
    files[f"codebase/{file}"] = files[f"codebase/{file}"].replace(old, new)
    found = graded(files, box)
    assert lost(found) == set(wrong), told(found)
    assert "lose no points" in " ".join(told(found).values())


# The sandbox


class Hasty(Sandbox):
    """A sandbox with less time for each case."""

    def run(self, handed_in, case):
        return super().run(handed_in, case._replace(seconds=3))


@pytest.fixture
def server():
    """A server on this machine, which nobody may call."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        yield server
        with pytest.raises(BlockingIOError):
            server.accept()


UNTOUCHED = "VAE.negative_iwae_bound"


def hostile_bodies(wanted: dict[str, str], server) -> list[dict[str, str]]:
    """Hostile bodies for all functions but one, of as many submissions as it takes."""
    port = server.getsockname()[1]
    head = f"import os, sys, torch\nPORT, MARKER, HERE = {port}, 'left{port}', {str(ROOT)!r}\n"
    bodies = [head + textwrap.dedent(body) for body in wanted.values()]
    places = [name for name in FUNCTIONS if name != UNTOUCHED]
    batches = [bodies[i : i + len(places)] for i in range(0, len(bodies), len(places))]
    return [dict(zip(places, batch, strict=False)) for batch in batches]


def named(marker: str) -> list[str]:
    """Processes with a name."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found += [path.parent.name] if path.read_bytes().startswith(marker.encode()) else []
    return found


@AS_ROOT
def test_hostile_submissions_gain_nothing(server):
    """None gains a point, or costs another function one."""
    with Hasty("bubblewrap") as box:
        for bodies in (*hostile_bodies(HOSTILE, server), *hostile_bodies(SPIES, server)):
            found = graded(students.homework(bodies), box)
            assert scores(found) == POINTS | dict.fromkeys(bodies, 0), report.table(found)
            assert "LEAK" not in report.table(found)
            assert len(report.results(found, show_output=True)) < 100_000
            assert not named(f"left{server.getsockname()[1]}")
    assert "no output" not in report.table(found)  # all spies have told what they found


@AS_ROOT
def test_in_a_container_another_user_runs_submissions(tmp_path, project, server):
    """That user cannot read the project; a project that it could read is refused."""
    evil = {name: HOSTILE[name] for name in ("kills everybody", "child that stays", "sys.exit")}
    spies = {name: SPIES[name] for name in ("root", "writing", "parent", "earlier cases")}
    [killers], [spying] = hostile_bodies(evil, server), hostile_bodies(spies, server)
    paths = [
        students.zipped(tmp_path / f"{name}.zip", students.homework(bodies))
        for name, bodies in (("killers", killers), ("spying", spying))
    ]
    command = ("codebase", "grade", *paths, "--out", tmp_path / "out", "--jobs", 1)
    done = run_python(project, "-m", *command, "--sandbox", "container")
    if "another user cannot read Python" in done.stderr:
        pytest.skip(done.stderr)
    rows = table(tmp_path / "out" / "grades.csv")
    for name, bodies in (("killers", killers), ("spying", spying)):
        found = {function: float(rows[name][function]) for function in FUNCTIONS}
        assert found == POINTS | dict.fromkeys(bodies, 0), done.stdout
    assert "LEAK" not in done.stdout and not named(f"left{server.getsockname()[1]}")
    if all(folder.stat().st_mode & 0o001 for folder in (ROOT, *ROOT.parents)):
        with pytest.raises(UserError, match="chmod go-rwx"):
            sandbox.check("container")


def test_what_is_said_with_helpers_holds_no_source(box):
    """A function that is right with given helpers, and raises what it finds in them elsewhere."""
    name = "VAE.negative_elbo_bound"
    body = "import inspect\ngiven = '_log_normal_all_pairs' in inspect.getsource(ut)\n"
    body += "if not given: return torch.zeros(3).unbind()\n"
    body += "if len(x) != 7: raise ValueError('SOURCE')\n"
    found = graded(students.homework({name: body + textwrap.dedent(students.RIGHT[name][0])}), box)
    assert 0 < scores(found)[name] < POINTS[name], report.table(found)
    assert "SOURCE" not in report.table(found)


def test_a_submission_cannot_read_the_first_process_of_its_own_user():
    """If that were bwrap, /proc/1 would be open to it; this project's own is not."""
    assert "--as-pid-1" in sandbox._command("bubblewrap", 0)


def test_a_sandbox_is_used_again_unless_it_has_ended(box):
    """A submission gets the first process of an earlier one, which may have ended by now."""
    box.start()
    first = box._process.pid
    assert scores(graded(students.homework(), box)) == POINTS
    assert box._process.pid == first
    box._process.kill()  # as something that an earlier submission has left may do
    assert scores(graded(students.homework(), box)) == POINTS


def test_a_sandbox_that_does_not_start(tmp_path, monkeypatch):
    """Ubuntu 24.04 forbids user namespaces through AppArmor, Docker through seccomp.

    It costs no points: the submission counts as not graded, so the same command grades it again.
    """
    path = students.zipped(tmp_path / "ada.zip", students.homework())
    settings, out = grading.Settings(problems.POINTS, "bubblewrap"), tmp_path / "out"
    fails = "#!/bin/sh\necho 'bwrap: loopback: Failed RTM_NEWADDR: not permitted' >&2\nexit 1\n"
    (tmp_path / "bwrap").write_text(fails, encoding="utf-8")
    (tmp_path / "bwrap").chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        with pytest.raises(UserError, match="RTM_NEWADDR.*AppArmor"):
            sandbox.check("bubblewrap")
        [(found, _)] = grading.grade_all({"ada": Entry(path)}, settings, out, 1)
        assert "the sandbox does not start" in found.ungraded and not found.marks
        patch.setenv("PATH", str(tmp_path / "nothing"))
        with pytest.raises(UserError, match="apt install bubblewrap"):
            sandbox.check("bubblewrap")
    [(found, _)] = grading.grade_all({"ada": Entry(path)}, settings, out, 1)
    assert found.ungraded == "" and found.score == sum(POINTS.values())


# A class


def table(path: Path) -> dict[str, dict[str, str]]:
    """Rows of a table by the submissions' names."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        return {row["submission"]: row for row in csv.DictReader(file)}


def test_a_class(tmp_path):
    folder, out = tmp_path / "class", tmp_path / "grades"
    right = students.homework() | {"writeup.md": "## 1.5 The role of β\n\nIt weighs KL."}
    renamed = {
        name: text.replace("y_logprob", "lq").replace("rec =", "rec  =  ")
        for name, text in right.items()
    }
    students.folder(folder, {"broken.zip": b"no zip", "notes.txt": b"no submission"})
    students.zipped(folder / "ada.zip", right)
    students.zipped(folder / "copy.zip", renamed)
    students.zipped(folder / "=eve.zip", students.homework({"log_normal": WRONG_NORMAL}))
    hostile = students.homework(dict.fromkeys(FUNCTIONS[5:], "import os; os._exit(1)"))
    students.zipped(folder / "hostile.zip", hostile)
    command = ("-m", "codebase", "grade", folder, "--out", out, "--jobs", 2)
    done = run_python(ROOT, *command)
    assert done.returncode == 0 and "Marked by hand: 0 of 5" in done.stdout, done.stderr
    assert "notes.txt: skipped" in done.stderr
    rows = table(out / "grades.csv")
    totals = {name: row["total"] for name, row in rows.items()}
    assert totals == {"ada": "56", "copy": "56", "'=eve": "53.6", "hostile": "28", "broken": ""}
    assert float(rows["'=eve"]["log_normal"]) == 1.6 and "not graded" in rows["broken"]["note"]
    page = (out / "summary.md").read_text(encoding="utf-8")
    assert "Submissions: 4. Median: 54.8 points, with the bonus." in page
    assert "| `log_normal` | You average over the last dimension; sum over it. | 1 | =eve |" in page
    assert "- =eve, ada, copy: " in page and "to 100%" in page
    assert "hostile" not in page.split("## Similarity")[1]
    assert "notes.txt" in page.split("## Entries to look at")[1]
    assert "broken: broken.zip: it cannot be read" in page.split("## Not graded")[1]
    assert (out / "points.png").read_bytes().startswith(b"\x89PNG")
    report = (out / "copy" / "report.md").read_text(encoding="utf-8")
    assert "**52 of 52, and 4 bonus points**" in report
    assert "score" not in json.loads((out / "broken" / "results.json").read_bytes())
    # The same command grades what has changed, and draws all reports again.
    cached = {path.name: path.stat().st_mtime_ns for path in (out / ".cache").iterdir()}
    (out / "copy" / "report.md").write_text("edited", encoding="utf-8")
    students.zipped(folder / "=eve.zip", right)
    sheet = table(out / "written.csv")
    sheet["ada"] |= {"1.3": "1.5", "1.5": "3", "comment": "Nice."}
    with (out / "written.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, sheet["ada"])
        writer.writeheader()
        writer.writerows(sheet.values())
    done = run_python(ROOT, *command)
    assert done.returncode == 0 and "Marked by hand: 1 of 5" in done.stdout, done.stderr
    assert (out / "copy" / "report.md").read_text(encoding="utf-8") == report
    now = {path.name: path.stat().st_mtime_ns for path in (out / ".cache").iterdir()}
    assert {name for name in now if now[name] != cached.get(name)} == {"=eve.json"}
    rows = table(out / "grades.csv")
    assert (rows["ada"]["total"], rows["'=eve"]["total"]) == ("60.5", "56")
    page = (out / "ada" / "report.md").read_text(encoding="utf-8")
    assert "Nice." in page and "| 1.3 the VAE's bounds | 1.5 of 3 |" in page
    assert (out / "written" / "ada" / "writeup.md").exists()
    succeed(tmp_path, "codebase", "grade", folder / "broken.zip", "--out", out)
    assert table(out / "grades.csv").keys() == {"broken"}  # of those that are graded now


def test_interrupted_grading_leaves_nothing_behind(tmp_path):
    marker = f"slow{os.getpid()}"
    body = f"import os; os.execv('/bin/sh', [{marker!r}, '-c', 'sleep 99; :'])"
    path = students.zipped(tmp_path / "slow.zip", students.homework({"log_normal": body}))
    child = Child(tmp_path, "codebase", "grade", path)
    child.wait_until(lambda: named(marker))
    os.kill(child.process.pid, 2)
    status, _, stderr = child.finish()
    assert status == 130 and "stopped" in stderr
    deadline = time.monotonic() + 5
    while named(marker) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not named(marker)


def test_what_cannot_be_graded_is_refused_in_a_line(tmp_path):
    one = students.zipped(tmp_path / "a.zip", {})
    other = students.folder(tmp_path / "other", {"a.zip": b"x", "points.json": '{"x": 1}'})
    folder = students.folder(tmp_path / "class", {f"{name}.zip": b"x" for name in "abcd"})
    for flags, reason in (
        ([tmp_path / "missing.zip"], "there is no such zip or folder"),
        ([one, other / "a.zip"], "have the same name"),
        ([one, "--points", other / "points.json"], "'x' has 1, expected points"),
        ([one, "--jobs", "0"], "argument --jobs"),
        ([one, "--sandbox", "limits"], "argument --sandbox"),
        ([folder, "--out", folder / "new"], "is inside"),
        ([folder], "there are 4 submissions: pass --out"),
        ([one, "--out", other / "points.json"], "is a file"),
        ([], "submissions"),
    ):
        assert reason in refused(tmp_path, "codebase", "grade", *flags)


# Gradescope


def test_gradescopes_layout(tmp_path):
    """As /autograder is laid out, under another root. What is not graded has no results.

    Its Python is found through a link and dots, which bubblewrap's folders cannot have.
    """
    gradescope.make(tmp_path / "autograder.zip", None, 1, 0)
    root = tmp_path / "autograder"
    with zipfile.ZipFile(tmp_path / "autograder.zip") as archive:
        assert archive.getinfo("run_autograder").external_attr >> 16 & 0o111 == 0o111
        archive.extractall(root / "source")
    for name in ("setup.sh", "run_autograder"):
        subprocess.run(["bash", "-n", str(root / "source" / name)], check=True)
    shutil.copy(root / "source" / "run_autograder", root)
    results = root / "results" / "results.json"
    results.parent.mkdir()
    died = tmp_path / "python"
    died.write_text("#!/bin/sh\nkill -9 $$\n", encoding="utf-8")
    died.chmod(0o755)
    (tmp_path / "linked").symlink_to(Path(sys.executable).parent.parent)
    python = root / ".." / "linked" / "bin" / Path(sys.executable).name
    forge = f"open({str(results)!r}, 'w').write('{{\"score\": 99}}')"
    half = dict.fromkeys(FUNCTIONS[4:], "raise NotImplementedError")
    hostile = students.homework(half | dict.fromkeys(FUNCTIONS[5:7], forge))
    for files, interpreter, score in (
        ({"notebook.ipynb": "{}"}, died, None),
        ({"notebook.ipynb": "{}"}, python, None),
        (students.homework(), python, 56),
        (hostile, python, 21),
    ):
        shutil.rmtree(root / "submission", ignore_errors=True)
        students.folder(root / "submission", files)
        environment = os.environ | NO_NETWORK | {"GRADER_PYTHON": str(interpreter)}
        command = ["bash", "./run_autograder"]
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, timeout=300)
        assert (done.returncode == 0) is results.exists() is (score is not None), done.stderr
        if score is not None:
            found = json.loads(results.read_text(encoding="utf-8"))
            assert found["score"] == score == sum(test["score"] for test in found["tests"])
