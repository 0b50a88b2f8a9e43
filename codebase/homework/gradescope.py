"""The zip that Gradescope grades with, and what it runs there."""

import json
import sys
import zipfile
from io import BytesIO
from pathlib import Path

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
# Grades ./submission and writes ./results/results.json.
set -euo pipefail
root=$(cd "$(dirname "$0")" && pwd)
cd "$root/source"
status=0
"${GRADER_PYTHON:-/opt/grader/bin/python}" -m codebase.homework.gradescope "$root" || status=$?
if [ ! -s "$root/results/results.json" ]; then
    reason="The grader ended with exit status $status before it had results."
    if [ "$status" = 137 ]; then
        reason="The grader was killed, probably because the container has too little memory: "
        reason+="give it at least 0.75 GB and the CPU wheels of torch."
    fi
    mkdir -p "$root/results"
    printf '{"score": 0, "output": "%s Tell your instructor."}\n' "$reason" \
        > "$root/results/results.json"
fi
"""
POINTS, SETTINGS = "points.json", "settings.json"


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
    own = problems.read_points(points)
    files[POINTS] = json.dumps(own, indent=1)
    files[SETTINGS] = json.dumps({"show_points": show_points, "show_output": show_output})
    table = ROOT / "codebase" / "homework" / "mistakes" / "README.md"
    for source in [table, *sorted((ROOT / "codebase").rglob("*.py"))]:
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
    """Grade root/submission, and write root/results/results.json."""
    from codebase.homework import grading, report, sandbox  # which need Linux; `make` does not

    chosen = json.loads((ROOT / SETTINGS).read_text(encoding="utf-8"))
    settings = grading.Settings(
        problems.read_points(ROOT / POINTS),
        sandbox.kind_of_this_machine(),
        show_points=bool(chosen["show_points"]),
        show_output=bool(chosen["show_output"]),
    )
    print(sandbox.guarantees(settings.kind))
    outcome = grading.grade_one(root / "submission", settings)
    print(outcome.table)
    write_atomically(root / "results" / "results.json", report.encoded(outcome.results))


if __name__ == "__main__":
    grade(Path(sys.argv[1]))
