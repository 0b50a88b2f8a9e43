"""Create the autograder zip for Gradescope, and grade a submission there."""

import json
import sys
import zipfile
from io import BytesIO
from pathlib import Path

import torch

from codebase.homework import problems
from codebase.machine.files import write_atomically
from codebase.project import ROOT, UserError

SETUP = """\
#!/usr/bin/env bash
# Runs once, as root, when Gradescope builds the image.
set -euo pipefail
apt-get update
apt-get install -y python3-venv bubblewrap
python3 -m venv /opt/grader
/opt/grader/bin/pip install uv
/opt/grader/bin/uv pip install --python /opt/grader/bin/python --torch-backend cpu \\
    -r /autograder/source/requirements.txt
chmod -R go-rwx /autograder/source  # submissions run as another user
"""
RUN = """\
#!/usr/bin/env bash
# Grades ./submission and writes ./results/results.json. If the grader dies there is none, so that
# Gradescope shows a failure and no points.
set -euo pipefail
root=$(cd "$(dirname "$0")" && pwd)
cd "$root/source"
exec "${GRADER_PYTHON:-/opt/grader/bin/python}" -m codebase.homework.gradescope "$root"
"""
SETTINGS = "settings.json"


def make(path: Path, points: Path | None, show_points: int, show_output: int) -> None:
    """Write the zip to upload as the autograder.

    Args:
        path: path of the zip
        points: JSON file of points; None: the homework's points
        show_points, show_output: 1 if students see their points, and what their code prints

    Raises:
        UserError: the path does not end in .zip, or the points cannot be read
    """
    if path.suffix != ".zip":
        raise UserError(f"{path} must end in .zip")
    files = {"setup.sh": SETUP, "run_autograder": RUN}
    files["requirements.txt"] = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    shown = (bool(show_points), bool(show_output))
    settings = {"points": problems.read_points(points), "shown": shown}
    files[SETTINGS] = json.dumps(settings, indent=1)
    for source in sorted((ROOT / "codebase").rglob("*.py")):
        files[source.relative_to(ROOT).as_posix()] = source.read_text(encoding="utf-8")
    content = BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            entry = zipfile.ZipInfo(name)
            executable = name in ("setup.sh", "run_autograder")
            entry.external_attr = (0o100755 if executable else 0o100644) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, text)
    write_atomically(path, content.getvalue())


def grade(root: Path) -> None:
    """Grade root/submission, and write root/results/results.json.

    Raises:
        UserError: the submission was not graded; no results are written, because 0 points would
            look real
    """
    from codebase.homework import grading, report, sandbox  # which need Linux; `make` does not
    from codebase.homework.submission import Entry
    from codebase.homework.written import Row

    torch.set_num_threads(1)
    chosen = json.loads((ROOT / SETTINGS).read_text(encoding="utf-8"))
    kind = "bubblewrap"
    try:
        sandbox.check(kind)
    except UserError:  # its container may not allow namespaces; it is of this submission alone
        kind = "container"
        sandbox.check(kind)
    settings = grading.Settings(chosen["points"], kind)
    with sandbox.Sandbox(kind) as box:
        found, _ = grading.grade_one("submission", Entry(root / "submission"), settings, box)
    if found.ungraded:
        raise UserError(f"the submission was not graded: {found.ungraded}")
    found = report.merged(found, Row(), chosen["points"])
    print(report.table(found))
    results = report.results(found, *chosen["shown"])
    write_atomically(root / "results" / report.RESULTS, results)


if __name__ == "__main__":
    grade(Path(sys.argv[1]))
