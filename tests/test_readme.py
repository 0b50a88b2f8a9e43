"""What the README promises: its example runs, and its names and files exist."""

import re
from pathlib import Path

import pytest
import tiny
import torch
from PIL import Image

from codebase import ROOT, checkpoints
from codebase.homework.mistakes import MISTAKES
from codebase.project import steps_in
from codebase.runs.published import PUBLISHED, REPLICATES

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
RUNS = (ROOT / "codebase" / "runs" / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", TEXT + RUNS, re.S)
[NOTEBOOK] = [EXAMPLES.pop(i) for i, one in enumerate(EXAMPLES) if "%run" in one]


def test_the_librarys_example():
    """As it stands, with the reference weights; two draws of z give bounds that are close."""
    example, _ = EXAMPLES
    torch.manual_seed(0)
    names: dict = {}
    exec(example, names)
    assert names["images"].shape == names["similar"].shape == (16, 784)
    assert names["m"].shape == names["v"].shape == (16, 10)
    assert abs(names["nelbo"] - names["kl"] - names["rec"]) < 1e-3
    assert 50 < names["niwae"] < names["nelbo"] < 150
    assert names["per_image"].shape == (16,)
    assert abs(names["per_image"].mean() - names["niwae"]) < 3


def test_the_example_of_your_own_images(folders, monkeypatch):
    """As it stands, but for the number of iterations."""
    monkeypatch.chdir(folders)
    Path("pictures").mkdir()
    for i, digit in enumerate(tiny._digits(28)[0]):
        Image.fromarray(digit.view(28, 28).numpy()).save(f"pictures/{i:03d}.png")
    names: dict = {}
    exec(EXAMPLES[1].replace("20_000", "60"), names)
    assert torch.equal(names["images"], tiny._digits(28)[0])
    with torch.no_grad():
        exec(
            "\n".join(line for line in EXAMPLES[0].splitlines() if line[:2] in ("im", "kl", "pe")),
            names,
        )
    assert names["per_image"].shape == (100,) and names["images"].shape == (16, 784)
    assert 50 < names["per_image"].mean() < 400  # 543 nats before training
    assert steps_in(checkpoints.run_folder("my pictures")) == [60]


@pytest.mark.process
def test_a_notebook(project, whole_data):
    """The README's lines in a kernel: the user's names stay, and errors are one line."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    (project / "data").symlink_to(whole_data)
    run = NOTEBOOK.replace("2000", "60 --data synthetic").replace(
        "run=0000", "run=0000_data=synthetic"
    )
    cells = [
        "mine = model = batch = x = 7",
        "%run run_vae.py --z 0",
        run.replace("model =", "m ="),
        "(mine, model, batch, x)",
    ]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(book, timeout=120, resources={"metadata": {"path": project}}).execute()
    said = ["".join(one.get("text", "") for one in cell.outputs) for cell in book.cells]
    assert "error: argument --z: got '0'" in said[1] and "Traceback" not in said[1]
    assert "NELBO: " in said[2] and "image/png" in book.cells[2].outputs[-1].data
    assert book.cells[3].outputs[0].data["text/plain"] == "(7, 7, 7, 7)"


def numbers_of(cell):
    return [float(number) for number in re.findall(r"\d+\.\d+", cell)]


def test_results():
    """In the order of the models: what runs, and submissions, are compared with."""
    [head] = re.findall(r"^\| \| N \|.*$", RUNS, re.M)
    figures = [cell.strip() for cell in head.split("|")[3:-1]]
    for pattern, known in ((r"\| published \|", PUBLISHED), (r"\| \*\*\w*VAE", REPLICATES)):
        rows = re.findall(rf"^{pattern}.*$", RUNS, re.M)
        for row, expected in zip(rows, known.values(), strict=True):
            _, _, number, *cells, _ = row.split("|")
            for name, cell in zip(figures, cells, strict=True):
                unit = 100 if "%" in cell else 1
                mean, deviation, *n = expected.get(name, (None, None))
                given = [unit * one for one in (mean, deviation) if one is not None]
                assert numbers_of(cell) == pytest.approx(given, abs=1e-9), name
                assert not n or n == [int(number)]


def test_the_short_table_of_results_is_part_of_the_long_one():
    text = (ROOT / "codebase" / "runs" / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (?:\*\*\w*VAE|published).*$", text, re.M)
    long = dict(
        zip(("VAE", "GMVAE", "gw 0", "SSVAE"), zip(rows[::2], rows[1::2], strict=True), strict=True)
    )
    [table] = re.findall(r"\| \| NELBO \| IWAE-1000 \|.*?\n\n", TEXT, re.S)
    for row in table.strip().splitlines()[2:]:
        name, *cells = (cell.strip() for cell in row.split("|")[1:-1])
        model, _, published = name.partition(", ")
        whole = [cell.strip() for cell in long[model][bool(published)].split("|")]
        assert cells == [whole[3], whole[9], whole[10]]


def test_linked_files_exist():
    for path in ROOT.rglob("README.md"):
        if ".venv" not in path.parts:
            targets = re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text(encoding="utf-8"))
            local = [target for target in targets if not target.startswith("https://")]
            assert all((path.parent / target).exists() for target in local), path


def test_how_many_mistakes_are_known():
    homework = (ROOT / "codebase" / "homework" / "README.md").read_text(encoding="utf-8")
    for text in (TEXT, homework):
        count = sum(map(len, MISTAKES.values()))
        assert f"{count} known mistakes" in " ".join(text.split())
