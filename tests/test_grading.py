"""Grading as teaching assistants do it: real submissions in real sandboxes."""

import json
import os
import select
import socket
import tempfile
import textwrap
import time
from contextlib import closing
from pathlib import Path

import pytest
import students
from conftest import Child, refused, succeed
from hostile import HOSTILE, SPIES

from codebase import ROOT, UserError
from codebase.homework import (
    SANDBOXES,
    cases,
    grade,
    grading,
    marking,
    problems,
    report,
    sandbox,
    submission,
)
from codebase.homework.problems import BY_FUNCTION, PROBLEMS

pytestmark = pytest.mark.sandbox
POINTS = {problem.function: problem.points for problem in PROBLEMS}
FUNCTIONS = list(POINTS)


@pytest.fixture(scope="session")
def kind() -> str:
    return sandbox.kind_of_this_machine()


@pytest.fixture(autouse=True)
def one_seed(monkeypatch):
    """Use one seed for all submissions, so that right outputs are computed once."""
    monkeypatch.setattr(cases, "seed_of", lambda content: 1)


def graded(tmp_path: Path, files: dict, kind: str) -> grade.Graded:
    root = students.folder(tmp_path / "student", files)
    return grade.grade(submission.read(root), POINTS, kind)


def scores(found: grade.Graded) -> dict[str, float]:
    return {mark.problem.function: mark.score for mark in found.marks}


@pytest.mark.parametrize("number", range(max(map(len, students.RIGHT.values()))))
def test_other_ways_to_be_right_get_full_points(tmp_path, kind, number):
    bodies = {f: right[number] for f, right in students.RIGHT.items() if number < len(right)}
    found = graded(tmp_path, students.homework(bodies), kind)
    assert scores(found) == POINTS, report.table(report.results(found))


def test_there_are_thirty_other_ways():
    assert sum(map(len, students.RIGHT.values())) >= 30


def test_the_solution_itself_gets_full_points(tmp_path, kind):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "codebase").symlink_to(ROOT / "codebase")
    found = grade.grade(submission.read(ROOT / "codebase"), POINTS, kind)
    assert scores(found) == POINTS, report.table(report.results(found))


def test_every_sandbox_that_works_here_gives_full_points(tmp_path):
    for which in SANDBOXES:
        if sandbox._works(which):
            found = graded(tmp_path / which, students.homework(), which)
            assert scores(found) == POINTS, report.table(report.results(found))


WIRED = """
    m, v = self.enc.encode(x)
    z = m + v.sqrt() * torch.randn(100, self.z_dim)
    kl = ut.kl_normal(m, v, *self.z_prior).mean()
    rec = -ut.log_bernoulli_with_logits(x, self.dec.decode(z)).mean()
    return kl + rec, kl, rec
    """
NO_CONSTANT = """
    return (-0.5 * (torch.log(v) + (x - m) ** 2 / v)).sum(-1)
    """
WRONG_NORMAL = """
    return (-0.5 * (np.log(2 * np.pi) + torch.log(v) + (x - m) ** 2 / v)).mean(-1)
    """


def test_submissions_as_they_are(tmp_path, kind):
    """Each trouble costs what it should, and says so."""
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
    found = graded(tmp_path, files, kind)
    assert scores(found) == POINTS | {
        "VAE.negative_elbo_bound": 4.8,
        "log_normal": 1.6,
        "GMVAE.negative_elbo_bound": 0,
        "GMVAE.negative_iwae_bound": 0,
        "SSVAE.negative_elbo_bound": 0,
        "FSVAE.negative_elbo_bound": 0,
    }
    told = {mark.problem.function: " ".join(report.explanation(mark)) for mark in found.marks}
    assert "You average over the last dimension; sum over it." in told["log_normal"]
    assert "You hard-code batches of 100" in told["VAE.negative_elbo_bound"]
    assert "The error comes from log_normal" in told["VAE.negative_iwae_bound"]
    assert "SyntaxError (codebase/models/gmvae.py:" in told["GMVAE.negative_iwae_bound"]
    assert "not written it yet" in told["SSVAE.negative_elbo_bound"]
    assert "'nelbo' is not defined" in told["FSVAE.negative_elbo_bound"]
    assert "does not have: debug, tensorflow." in " ".join(found.notes)
    assert "hello" in found.printed


@pytest.mark.parametrize(
    "header",
    [
        "import matplotlib.pyplot as plt\nplt.rcParams['figure.figsize'] = (10, 8)",
        "import wandb as w\ndef show(x, ax: w.Axes | None = None): pass",
        "from jaxtyping import Float\ndef h(x: Float[torch.Tensor, 'b d']): pass",
        "import tensorflow as tf\nprint('tf', tf.__version__)\nwith tf.device('x') as d: len(d)",
        "from torch.utils.tensorboard import SummaryWriter\nwriter = SummaryWriter('logs')",
        "@torch.jit.script\ndef combine(a, b):\n    return a + b",
        "import antigravity_missing\n@antigravity_missing.jit\ndef helper(x):\n    return x",
    ],
)
def test_packages_that_are_not_here_cost_nothing(kind, header):
    """Imports of missing packages cost nothing; the function is called by itself, as in `grade`."""
    files = students.homework()
    files["codebase/utils.py"] = "import torch\n" + header + files["codebase/utils.py"]
    problem = BY_FUNCTION["log_normal"]
    with sandbox.Sandbox(kind, "codebase", files) as box:
        marked = marking.mark(problem, 4, 1, box.run)
    assert marked.score == 4, marked.reasons


HABITS = """
import os
import torch
from scipy import constants
from torch.utils.tensorboard import SummaryWriter
torch.set_default_dtype(torch.float64)
torch.set_num_threads(8)
compiled = torch.compile(lambda x: x * constants.pi / constants.pi, mode="max-autotune")
"""


def test_habits_cost_nothing(tmp_path, kind):
    """Settings for one's own machine, a compiler, installed packages."""
    body = "    return compiled(torch.distributions.Normal(m, v.sqrt()).log_prob(x).sum(-1))"
    files = students.homework({"log_normal": body})
    files["codebase/utils.py"] = HABITS + files["codebase/utils.py"]
    name = "codebase/models/vae.py"
    files[name] = files[name].replace("    def neg", "    @torch.compile\n    def neg")
    found = graded(tmp_path, files, kind)
    assert scores(found) == POINTS, report.table(report.results(found))
    assert "torch," not in found.notes[0] and "scipy" not in found.notes[0]


def test_all_helpers_at_fault_are_named(tmp_path, kind):
    files = students.homework({"log_normal": WRONG_NORMAL})
    for right, wrong in (
        ("(0.5 * (torch.log(pv)", "(1.0 * (torch.log(pv)"),
        ("F.softplus(h)", "torch.exp(h)"),
    ):
        assert right in files["codebase/utils.py"]
        files["codebase/utils.py"] = files["codebase/utils.py"].replace(right, wrong)
    found = graded(tmp_path, files, kind)
    told = {mark.problem.function: " ".join(report.explanation(mark)) for mark in found.marks}
    assert "comes from gaussian_parameters and kl_normal," in told["VAE.negative_elbo_bound"]
    assert "comes from log_normal and gaussian_parameters," in told["VAE.negative_iwae_bound"]
    assert scores(found) == POINTS | {"log_normal": 1.6}


def marked(files: dict, kind: str, *functions: str) -> list[marking.Mark]:
    """Some functions of a submission, one after another."""
    marks = {}
    with sandbox.Sandbox(kind, "codebase", files) as box:
        for name in functions:
            problem = BY_FUNCTION[name]
            marks[name] = marking.mark(problem, problem.points, 1, box.run, marks)
    return list(marks.values())


def test_a_network_and_a_helper_at_fault_cost_the_bounds_nothing(kind):
    files = students.homework({"log_normal": WRONG_NORMAL})
    decoder = "nn.Linear(z_dim + y_dim, 300), nn.ELU()"
    nets = "codebase/models/nns/v1.py"
    assert decoder in files[nets]
    files[nets] = files[nets].replace(decoder, decoder.replace("ELU", "Tanh"))
    names = ("sample_gaussian", "log_normal", "VAE.negative_iwae_bound", "VAE.negative_elbo_bound")
    _, wrong, iwae, elbo = marked(files, kind, *names)
    assert wrong.lost and not iwae.lost and not elbo.lost
    assert "a network in models/nns/ and log_normal," in iwae.notes[0]
    assert "a network in models/nns/, so" in elbo.notes[0]


def test_blame_is_only_where_it_belongs(kind):
    elbo = "VAE.negative_elbo_bound"
    files = students.homework()
    right = "(qm - pm).pow(2) / pv - 1)).sum(-1)"
    assert right in files["codebase/utils.py"]
    files["codebase/utils.py"] = files["codebase/utils.py"].replace(right, right + ".detach()")
    told = marked(files, kind, "sample_gaussian", elbo)[1]
    assert not told.lost and "comes from kl_normal," in told.notes[0]
    files = students.homework({"log_normal_mixture": "import os; os._exit(1)"})
    told = marked(files, kind, "log_normal_mixture", elbo)[1]
    assert not told.lost and "the reference's log_normal_mixture" in told.notes[0]
    assert "comes from" not in told.notes[0]


def test_a_bound_of_the_reference_draws_is_compared_with_them(kind):
    """kl and rec are the reference's to the digit, so that no other draws excuse the bound."""
    name = "VAE.negative_iwae_bound"
    body = textwrap.dedent(students.RIGHT[name][0])
    for constant, lost in ((0, []), (0.1, ["niwae"])):
        wrapped = "def inner():\n" + textwrap.indent(body, "    ")
        wrapped += f"\nniwae, kl, rec = inner()\nreturn niwae + {constant}, kl, rec"
        [told] = marked(students.homework({name: wrapped}), kind, name)
        assert told.lost == lost, told.reasons


def test_a_broken_utils_or_constructor_costs_itself_alone(tmp_path, kind):
    files = students.homework()
    files["codebase/utils.py"] = "def sample_gaussian(m, v:\n"
    files["codebase/models/vae.py"] = files["codebase/models/vae.py"].replace(
        "super().__init__()", "super().__init__(); self.missing"
    )
    found = graded(tmp_path, files, kind)
    wrong = {"sample_gaussian": 0, "log_normal": 0, "log_normal_mixture": 0}
    assert scores(found) == POINTS | wrong, report.table(report.results(found))
    told = " ".join(report.explanation(found.marks[1]))
    assert "the model's constructor" in told


def test_a_model_whose_base_class_is_broken_costs_nothing(tmp_path, kind):
    """GMVAE is derived from the VAE, whose file cannot be imported."""
    files = students.homework()
    name = "codebase/utils.py"
    files[name] = files[name].replace("from codebase.models", "# from codebase.models")
    files["codebase/models/vae.py"] += "\ndef broken(:\n"
    name = "codebase/models/gmvae.py"
    base = "from codebase.models.vae import VAE\n\n\nclass GMVAE(VAE)"
    files[name] = files[name].replace("class GMVAE(nn.Module)", base)
    found = graded(tmp_path, files, kind)
    lost = {function for function, score in scores(found).items() if score < POINTS[function]}
    assert lost == {"VAE.negative_elbo_bound", "VAE.negative_iwae_bound"}, report.table(
        report.results(found)
    )
    assert "vae.py cannot be imported" in " ".join(found.notes)


@pytest.mark.parametrize("package", ["submission"])
def test_the_successor_courses_package(tmp_path, kind, package):
    found = graded(tmp_path, students.homework(package=package), kind)
    assert scores(found) == POINTS


def test_the_same_submission_gives_the_same_bytes(tmp_path, kind):
    files = students.homework({"log_normal": NO_CONSTANT})
    one, other = (graded(tmp_path / number, files, kind) for number in ("1", "2"))
    assert report.encoded(report.results(one)) == report.encoded(report.results(other))


def test_one_submission_after_another_in_one_sandbox(tmp_path, kind):
    """The later one sees nothing of the earlier, neither modules nor files nor processes."""
    leave = """
        import sys, subprocess
        sys.left = torch.left = 1
        open("/tmp/left", "w").write("x")
        open("/dev/shm/left", "w").write("x")
        if os.fork() == 0:
            os.closerange(0, 64); os.setsid(); time.sleep(3600)
        raise ValueError("left")
        """
    look = """
        import sys, os
        left = [p for f in ("/tmp", "/dev/shm") for p in os.listdir(f) if p == "left"]
        left += [m for m in (sys, torch) if hasattr(m, "left")]
        mine = ("1", "2", str(os.getpid()))
        left += [p for p in os.listdir("/proc") if p.isdigit() and p not in mine]
        raise ValueError(f"sees {left}")
        """
    told = []
    for number, body in enumerate((leave, look)):
        files = students.homework({"log_normal": body})
        files["codebase/utils.py"] = "import os, time\n" + files["codebase/utils.py"]
        root = students.folder(tmp_path / str(number), files)
        with sandbox.Sandbox(kind, "codebase", submission.read(root).sources) as box:
            told += marking.mark(BY_FUNCTION["log_normal"], 4, 1, box.run).reasons
        assert sandboxed() == []
    assert "ValueError" in told[0] and "left" in told[0]
    assert "sees []" in told[1], told


def test_the_umask_costs_no_points(tmp_path, kind):
    """As root, the sandbox runs as another user, who must be able to read its program."""
    before = os.umask(0o077)
    try:
        with sandbox.Sandbox(kind, "codebase", students.homework()) as box:
            assert marking.mark(BY_FUNCTION["log_normal"], 4, 1, box.run).score == 4
    finally:
        os.umask(before)


def test_a_sandbox_that_does_not_start_costs_no_points(tmp_path, kind, monkeypatch):
    """The submission counts as not graded, so the same command grades it again."""
    monkeypatch.setattr(sandbox, "_archive", lambda: b"raise SystemExit")
    path = students.zipped(tmp_path / "ada.zip", students.homework())
    settings, out = grading.Settings(problems.POINTS, kind), tmp_path / "out"
    [found] = grading.grade_all({"ada": path}, settings, out, 1)
    assert "the sandbox does not start" in found.ungraded and found.results["score"] == 0
    monkeypatch.undo()
    [found] = grading.grade_all({"ada": path}, settings, out, 1)
    assert found.ungraded == "" and found.results["score"] == sum(POINTS.values())


def test_the_next_sandbox_starts_meanwhile(tmp_path, kind):
    """It has seen nothing of the submission before; one that has failed costs nothing."""
    marker = "unmistakable_" + "x" * 20
    files = students.homework() | {"codebase/more.py": f"# {marker}\n" * 1000}
    problem = BY_FUNCTION["log_normal"]
    with sandbox.Sandbox(kind, "codebase", files) as box:
        box.ready()
        box.prepare(kind)
        assert marking.mark(problem, 4, 1, box.run).score == 4
    spare = sandbox.Sandbox.spare._process
    for ended in (False, True):
        if ended:
            sandbox.Sandbox.prepare(kind)
            spare = sandbox.Sandbox.spare._process
            # From here on, what bubblewrap has started ends when bubblewrap does.
            assert select.select([spare.stdout], [], [], sandbox.START_SECONDS)[0]
            below = sandbox.descendants(spare.pid)
            spare.kill()
            spare.wait()
            deadline = time.monotonic() + sandbox.END_SECONDS
            while any(map(sandbox.runs, below)) and time.monotonic() < deadline:
                time.sleep(0.01)
        with sandbox.Sandbox(kind, "codebase", students.homework()) as box:
            box.ready()
            assert (box._process is spare) is not ended
            assert marking.mark(problem, 4, 1, box.run).score == 4
    sandbox.Sandbox.prepare(kind)
    first = sandbox.Sandbox.spare._process.pid
    below = [first, *sandbox.descendants(first)]
    sandbox.Sandbox.discard()
    assert not any(map(sandbox.runs, below))


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_class_leaves_no_temporary_folder(tmp_path, kind, monkeypatch, jobs):
    """A class's temporary folder is removed, even if a sandbox does not start."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    blank = dict.fromkeys(FUNCTIONS, "raise NotImplementedError")
    found = {
        name: students.zipped(tmp_path / f"{name}.zip", students.homework(blank))
        for name in ("ada", "bob", "carl")
    }
    settings = grading.Settings(problems.POINTS, kind)
    assert len(list(grading.grade_all(found, settings, None, jobs))) == 3
    assert list(temporary.iterdir()) == []
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not sandbox._works("bubblewrap") and list(temporary.iterdir()) == []


def test_python_may_lie_below_tmp(tmp_path, monkeypatch):
    """Python may lie below /tmp, where each sandbox has a folder of its own."""
    tmp_path.chmod(0o755)
    (tmp_path / "seen").write_text("it is seen", encoding="utf-8")
    folders = [*sandbox._folders(), str(tmp_path)]
    monkeypatch.setattr(sandbox, "_folders", lambda: folders)
    monkeypatch.setattr(sandbox.Sandbox, "spare", None)
    files = students.homework({"log_normal": f"raise ValueError(open('{tmp_path}/seen').read())"})
    for which in [which for which in SANDBOXES[:1] if sandbox._works(which)]:
        [told] = marked(files, which, "log_normal")
        assert "it is seen" in told.reasons[0]


# Untrusted code


def hostile_bodies(wanted: dict[str, str], port: int) -> list[dict[str, str]]:
    """Submissions with a hostile body in each of their functions but the last ones."""
    head = f"import os, sys, torch\nPORT, PREFIX, HERE = {port}, sys.prefix, {str(ROOT)!r}\n"
    head += "TMP = os.environ.get('TMPDIR', '/tmp')\n"
    bodies = [head + textwrap.dedent(body) for body in wanted.values()]
    places = ["log_normal", "sample_gaussian", "VAE.negative_elbo_bound"]
    places += ["log_normal_mixture", "GMVAE.negative_iwae_bound", "SSVAE.negative_elbo_bound"]
    return [
        dict(zip(places, bodies[begin : begin + len(places)], strict=False))
        for begin in range(0, len(bodies), len(places))
    ]


def grade_hostile(tmp_path: Path, wanted: dict[str, str], kind: str) -> int:
    """Grade hostile submissions: none gains a point, or costs another function one."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        server.settimeout(0)
        for number, bodies in enumerate(hostile_bodies(wanted, server.getsockname()[1])):
            outside = sorted(path.name for path in tmp_path.iterdir())
            found = graded(tmp_path / str(number), students.homework(bodies), kind)
            assert scores(found) == POINTS | dict.fromkeys(bodies, 0), report.table(
                report.results(found)
            )
            assert "LEAK" not in report.table(report.results(found))
            assert len(report.encoded(report.results(found))) < 100_000
            assert outside == sorted(p.name for p in tmp_path.iterdir() if p.name != str(number))
            assert sandboxed() == []
        with pytest.raises(BlockingIOError):  # nobody called
            server.accept()
    return len(wanted)


def sandboxed() -> list[str]:
    """The processes of hostile submissions that are still there."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            lines = dict(
                line.split(":\t", 1) for line in status.read_text(encoding="utf-8").splitlines()
            )
        except (OSError, ValueError):
            continue
        user = int(lines["Uid"].split()[0])
        if user == sandbox.USER and not lines["State"].startswith("Z"):
            found.append(lines["Name"])
    return found


SOME = (
    *("equal to everything", "patched comparison", "sys.exit", "kills its parent", "100 GB tensor"),
    *("child that stays", "writes into every pipe", "answer of another form", "1 GB of prints"),
    *("forged results", "solution", "network", "system calls", "root", "error for terminals"),
    "user of one's own",
)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="some spies look as root")
def test_hostile_submissions_gain_nothing(tmp_path, kind, monkeypatch, count):
    monkeypatch.setattr(cases, "SECONDS", 3)
    every = HOSTILE | SPIES
    count("hostile functions", grade_hostile(tmp_path, {name: every[name] for name in SOME}, kind))


@pytest.mark.attack
@pytest.mark.parametrize("which", SANDBOXES)
def test_all_hostile_submissions_in_all_sandboxes(tmp_path, which, monkeypatch, count):
    try:
        sandbox.wanted(which)
    except Exception as error:
        pytest.skip(str(error))
    monkeypatch.setattr(cases, "SECONDS", 3)
    monkeypatch.setattr(cases, "MANY_SECONDS", 10)
    wanted = HOSTILE | SPIES
    if which == "limits":  # which promise less
        for name in ("other files", "solution"):
            del wanted[name]
    count(f"hostile functions, {which}", grade_hostile(tmp_path, wanted, which))


def test_code_that_runs_on_import_is_ended(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(cases, "SECONDS", 1)
    files = students.homework()
    files["codebase/models/ssvae.py"] += "\nwhile True: pass\n"
    files["codebase/models/fsvae.py"] += "\nimport os; os._exit(0)\n"
    begun = time.monotonic()
    found = graded(tmp_path, files, kind)
    assert time.monotonic() - begun < 120
    wrong = {"SSVAE.negative_elbo_bound": 0, "FSVAE.negative_elbo_bound": 0}
    assert scores(found) == POINTS | wrong


# The command


def test_the_command_writes_reports(tmp_path):
    folder, out = tmp_path / "class", tmp_path / "grades"
    folder.mkdir()
    students.zipped(folder / "ada.zip", students.homework())
    (folder / "bob.zip").write_text("no zip", encoding="utf-8")
    (folder / ".hidden.zip").write_text("no zip", encoding="utf-8")
    (folder / "gone.zip").symlink_to(folder / "nowhere.zip")
    stdout, _ = succeed(tmp_path, "codebase", "grade", folder, "--out", out, "--jobs", 1)
    assert "ada:" in stdout and "52 of 52, and 4 bonus" in stdout
    assert "cannot be read as a zip" in stdout
    scores = {
        path.parent.name: json.loads(path.read_text(encoding="utf-8"))["score"]
        for path in out.glob("*/*.json")
    }
    assert scores == {"ada": 56, "bob": 0, "gone": 0}
    assert "**52 of 52, and 4 bonus points**" in (out / "ada" / "report.md").read_text(
        encoding="utf-8"
    )
    assert "there is no such zip" in (out / "gone" / "report.md").read_text(encoding="utf-8")


def test_what_cannot_be_graded_is_refused_in_a_line(tmp_path):
    one, other = tmp_path / "1" / "a.zip", tmp_path / "2" / "a.zip"
    for path in (one, other):
        path.parent.mkdir()
        students.zipped(path, students.homework())
    points = tmp_path / "points.json"
    points.write_text('{"x": 1}', encoding="utf-8")
    for flags, reason in (
        ([tmp_path / "missing.zip"], "there is no such zip or folder"),
        ([one, other], "have the same name"),
        ([one, "--points", points], "'x' is not one of"),
        ([one, "--jobs", "0"], "argument --jobs"),
        ([one, "--sandbox", "none"], "argument --sandbox"),
        ([one, "--show_points", "2"], "argument --show_points"),
        ([], "submissions"),
    ):
        assert reason in refused(tmp_path, "codebase", "grade", *flags)


def test_interrupted_grading_leaves_nothing_behind(tmp_path):
    """Interrupted grading says so, as every command does, and leaves nothing behind."""
    body = {"log_normal": "while True: pass"}
    path = students.zipped(tmp_path / "slow.zip", students.homework(body))
    child = Child(tmp_path, "codebase", "grade", path)
    child.wait_until(lambda: len(sandbox.descendants(child.process.pid)) > 2)
    below = sandbox.descendants(child.process.pid)
    os.kill(child.process.pid, 2)
    status, _, stderr = child.finish()
    assert status == 130 and "stopped" in stderr
    assert not any(map(sandbox.runs, below))


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
        sandbox.wanted("bubblewrap")
    assert "RTM_NEWADDR" in sandbox.guarantees("limits")
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert "apt install bubblewrap" in sandbox.guarantees("limits")
