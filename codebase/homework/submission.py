"""What a student handed in: the homework's Python files, found in a zip or a folder.

Nothing is unpacked: files are read into memory, and only those that could be asked something.
"""

import ast
import hashlib
import io
import os
import stat
import tokenize
import zipfile
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from codebase import UserError
from codebase.machine.files import one_line, read_file

PACKAGES = ("codebase", "submission")  # the homework's, and its successor's
LARGEST_ZIP = 256 << 20  # bytes
LARGEST_FILE = 1 << 20  # of Python
LARGEST_SUM = 8 << 20
MOST_ENTRIES = 20_000
MOST_FILES = 500  # of Python
ENTRY = b"PK\x01\x02"  # with which a zip's directory begins each entry


@dataclass(frozen=True)
class Submission:
    """A submission's code.

    Args:
        name: of the zip or folder
        package: what its modules import one another by, "codebase" or "submission"
        sources: contents by paths such as codebase/models/vae.py
        notes: what was left out or mended, for the report
        weights: where checkpoints lie in it, by run and iteration
    """

    name: str
    package: str
    sources: dict[str, str]
    notes: tuple[str, ...] = ()
    weights: dict[tuple[str, int], str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Of the code alone: two submissions of the same code are marked alike."""
        content = repr((self.package, sorted(self.sources.items()))).encode()
        return hashlib.sha256(content).hexdigest()


def read(path: Path) -> Submission:
    """Read a submission.

    Raises:
        UserError: it is neither a zip nor a folder, or has no package with utils.py and models/
    """
    return _submission(name_of(path), path, _files(path))


def name_of(path: Path) -> str:
    """A submission's name: its folder's, or its zip's without .zip."""
    return (path.name or path.resolve().name).removesuffix(".zip")


def has_package(folder: Path) -> bool:
    """Whether the homework's code lies at the top of a folder."""
    return any(
        (folder / name / "utils.py").exists() for name in (*PACKAGES, ".") if folder.is_dir()
    )


def content(path: Path, inner: str, limit: int) -> bytes:
    """A file in a submission, by its path there.

    Raises:
        OSError: it is larger than the limit, or cannot be read
        UserError: see `read`
    """
    return _files(path).contents(inner, limit)


def _files(path: Path) -> "_Files":
    try:
        if path.is_dir():
            return _in_folder(path)
        if path.exists():
            return _in_zip(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    except UserError:
        raise
    except Exception as error:  # whatever zipfile raises for damaged zips
        raise UserError(f"{path}: it cannot be read as a zip: {one_line(error)}") from None
    raise UserError(f"{path}: there is no such zip or folder")


class _Files:
    """The files of a submission: their paths, and a function that reads one of them."""

    def __init__(self, paths: list[str], contents, notes: list[str]):
        self.paths, self.contents, self.notes = paths, contents, notes


def _in_folder(root: Path) -> _Files:
    paths, notes = [], []
    for folder, folders, files in os.walk(root):
        for name in list(folders):
            if (Path(folder) / name).is_symlink():
                notes.append(f"{_below(root, folder, name)} is a link and was left out")
        folders[:] = sorted(name for name in folders if not _is_noise(name))
        for name in sorted(files):
            path = Path(folder, name)
            if path.is_symlink():
                notes.append(f"{_below(root, folder, name)} is a link and was left out")
            elif stat.S_ISREG(path.lstat().st_mode):
                paths.append(_below(root, folder, name))
            if len(paths) > MOST_ENTRIES:
                raise UserError(f"{root}: it has more than {MOST_ENTRIES:,} files")
    return _Files(paths, lambda path, limit: bytes(read_file(root / path, limit)), notes)


def _below(root: Path, folder: str, name: str) -> str:
    return Path(folder, name).relative_to(root).as_posix()


def _in_zip(path: Path) -> _Files:
    content = bytes(read_file(path, LARGEST_ZIP))
    if content.count(ENTRY) > MOST_ENTRIES:
        raise UserError(f"{path}: it has more than {MOST_ENTRIES:,} entries")
    archive = zipfile.ZipFile(io.BytesIO(content))
    entries, notes = {}, []
    for entry in archive.infolist():
        name = entry.filename.replace("\\", "/")
        parts = PurePosixPath(name).parts
        if name.startswith("/") or ".." in parts or "\0" in name or not parts:
            notes.append(f"{name!r:.100} leads out of the zip and was left out")
        elif stat.S_ISLNK(entry.external_attr >> 16):
            notes.append(f"{name!r:.100} is a link and was left out")
        elif not entry.is_dir() and not name.endswith("/"):
            entries["/".join(parts)] = entry

    def contents(name: str, limit: int) -> bytes:
        """Whatever size the zip's directory gives: no more than the limit is unpacked."""
        if entries[name].compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise OSError(0, "it is not compressed as zips usually are")  # nor with such a limit
        try:
            with archive.open(entries[name]) as file:
                read = file.read(limit + 1)
        except Exception as error:  # whatever zipfile raises for damaged zips
            raise OSError(0, one_line(error)) from None
        if len(read) > limit:
            raise OSError(0, f"it has more than {limit:,} bytes")
        return read

    return _Files(sorted(entries), contents, notes)


def _is_noise(name: str) -> bool:
    return name in ("__MACOSX", "__pycache__", "node_modules") or name.startswith(".")


def _submission(name: str, path: Path, files: _Files) -> Submission:
    paths = [p for p in files.paths if not any(map(_is_noise, p.split("/")))]
    root = _package(paths)
    if root is None:
        notebooks = [p for p in paths if p.endswith(".ipynb")]
        also = f"; it has {notebooks[0]}, and notebooks are not marked" if notebooks else ""
        wanted = " or ".join(f"{package}/" for package in PACKAGES)
        raise UserError(f"{path}: no folder {wanted} with utils.py and models/ is in it{also}")
    notes = list(files.notes)
    chosen, others = root
    if others:
        notes.append(f"of {len(others) + 1} copies of the code, {chosen or 'the first'} is marked")
    package = chosen.rpartition("/")[2] if chosen.rpartition("/")[2] in PACKAGES else PACKAGES[0]
    prefix = f"{chosen}/" if chosen else ""
    sources, size = {}, 0
    for file in [p for p in paths if p.startswith(prefix) and p.endswith(".py")]:
        inner = f"{package}/{file.removeprefix(prefix)}"
        try:
            content = files.contents(file, LARGEST_FILE)
        except (OSError, zipfile.BadZipFile) as error:
            reason = error.strerror if isinstance(error, OSError) else one_line(error)
            notes.append(f"{inner} was left out: {reason}")
            continue
        size += len(content)
        if size > LARGEST_SUM or len(sources) == MOST_FILES:
            notes.append(f"{inner} and what follows was left out: too much code")
            break
        sources[inner] = _decoded(content, inner, notes)
    return Submission(name, package, sources, tuple(notes), _weights(paths))


def _package(paths: list[str]) -> tuple[str, list[str]] | None:
    """The folder with utils.py and models/, the one least deep; and the others."""
    found = []
    for path in paths:
        folder, _, file = path.rpartition("/")
        prefix = f"{folder}/" if folder else ""
        if file == "utils.py" and any(
            p.startswith(f"{prefix}models/") and p.endswith(".py") for p in paths
        ):
            named = folder.rpartition("/")[2] in PACKAGES
            found.append((not named, folder.count("/"), folder))
    found.sort()
    return (found[0][2], [folder for _, _, folder in found[1:]]) if found else None


def _decoded(content: bytes, file: str, notes: list[str]) -> str:
    """Python's text: as its coding line says, without a byte order mark, with Unix's line ends."""
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
        text = content.decode(encoding)
    except (SyntaxError, UnicodeError, LookupError):
        for mark, encoding in ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"", "latin-1")):
            if content.startswith(mark):
                text = content.decode(encoding, errors="replace")
                notes.append(f"{file} was read as {encoding}: it is not UTF-8")
                break
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _weights(paths: list[str]) -> dict[tuple[str, int], str]:
    """Checkpoints by run and iteration: <run>/model-<iteration>.pt, wherever they lie."""
    found = {}
    for path in paths:
        *_, run, file = ["", *path.split("/")]
        step = file.removeprefix("model-").removesuffix(".pt")
        if file == f"model-{step}.pt" and step.isdecimal() and len(step) < 12 and run:
            found.setdefault((run, int(step)), path)
    return found


def function_in(tree: ast.Module, model: str, method: str) -> ast.FunctionDef | None:
    """A function of a file, or where a class is named, its method; None where there is none."""
    owner = _class(tree, model) if model else tree
    body = owner.body if owner else []
    named = [n for n in body if isinstance(n, ast.FunctionDef) and n.name == method]
    return named[-1] if named else None


def inherits(tree: ast.Module, model: str) -> bool:
    """Whether a class of a file is derived from another model of the homework."""
    found = _class(tree, model)
    bases = [] if found is None else found.bases
    names = [getattr(base, "attr", getattr(base, "id", "")) for base in bases]
    return any(name.endswith("VAE") for name in names)


def _class(tree: ast.Module, name: str) -> ast.ClassDef | None:
    found = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name]
    return found[-1] if found else None


def is_blank(node: ast.FunctionDef) -> bool:
    """Whether its last statement still raises NotImplementedError."""
    last = node.body[-1]
    if not isinstance(last, ast.Raise):
        return False
    names = [node.id for node in ast.walk(last) if isinstance(node, ast.Name)]
    return "NotImplementedError" in names
