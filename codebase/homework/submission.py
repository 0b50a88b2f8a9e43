"""What a student handed in: the homework's Python files, found in a zip or a folder.

Nothing is unpacked: files are read into memory, and only those that could be called.
"""

import ast
import bisect
import codecs
import hashlib
import io
import os
import stat
import tokenize
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from codebase.homework.files import read_file
from codebase.machine.files import one_line
from codebase.project import UserError

PACKAGES = ("codebase", "submission")  # the homework's, and its successor's
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".rar", ".7z")  # only .zip is read
LARGEST_ZIP = 256 << 20  # bytes
LARGEST_FILE = 1 << 20  # bytes of a Python file
LARGEST_SUM = 8 << 20
MOST_ENTRIES = 20_000
MOST_FILES = 500  # Python files
MOST_NOTES = 20  # about files that were left out
SLOW = ("punycode", "idna")  # encodings whose time grows with the square of the length
ENTRY = b"PK\x01\x02"  # with which a zip's directory begins each entry


@dataclass(frozen=True)
class Submission:
    """A submission's code.

    Args:
        name: name of the zip or folder
        package: name by which its modules import one another, "codebase" or "submission"
        sources: contents by paths such as codebase/models/vae.py
        notes: sentences about what was left out or mended
        weights: paths of the checkpoints, by run and iteration
    """

    name: str
    package: str
    sources: dict[str, str]
    notes: tuple[str, ...] = ()
    weights: dict[tuple[str, int], str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """A hash of only the code: two submissions of the same code get the same marks."""
        content = repr((self.package, sorted(self.sources.items()))).encode()
        return hashlib.sha256(content).hexdigest()


def read(path: Path) -> Submission:
    """Read a submission.

    Raises:
        UserError: it is neither a zip nor a folder, or has no package with utils.py and models/
    """
    return _submission(name_of(path), path, files_of(path))


def name_of(path: Path) -> str:
    """Return a submission's name: its folder's, or its archive's without the suffix."""
    name = path.name or path.resolve().name
    suffix = archive_suffix(name)
    return name[: -len(suffix)] if suffix and len(name) > len(suffix) else name


def archive_suffix(name: str) -> str:
    """Return the suffix of an archive's name, in any case; empty for other files."""
    return next((name[-len(end) :] for end in ARCHIVES if name.lower().endswith(end)), "")


def has_package(folder: Path) -> bool:
    """Whether the homework's code is at the top of a folder."""
    names = (*PACKAGES, ".")
    return folder.is_dir() and any(os.path.exists(folder / name / "utils.py") for name in names)


def files_of(path: Path) -> "Files":
    """Find a submission's files; if it has no package but one zip, also the files in the zip.

    Raises:
        UserError: it is neither a zip nor a folder, or cannot be read
    """
    if path.is_file() and path.suffix == ".py":
        raise UserError(f"{path}: {LONE_FILE}")
    if archive_suffix(path.name).lower() not in ("", ".zip") and not path.is_dir():
        raise UserError(f"{path}: only zips and folders can be read: hand in a .zip")
    try:
        if not path.exists():
            raise UserError(f"{path}: there is no such zip or folder")
        files = _in_folder(path) if path.is_dir() else _in_zip(bytes(read_file(path, LARGEST_ZIP)))
        zips = [inner for inner in files.paths if inner.lower().endswith(".zip")]
        if package_in(files.paths) is None and len(zips) == 1:
            return _with_inner_zip(files, zips[0])
        return files
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    except UserError:
        raise
    except Exception as error:  # whatever zipfile raises for damaged zips
        raise UserError(f"{path}: it cannot be read as a zip: {one_line(error)}") from None


LONE_FILE = "one file is not enough: hand in the zip that `python -m codebase submit` creates"


@dataclass(frozen=True)
class Files:
    """The files of a submission.

    Args:
        paths: paths of its files
        contents: reads one of them, up to a number of bytes; raises OSError
        notes: sentences about what was left out
    """

    paths: list[str]
    contents: Callable[[str, int], bytes]
    notes: list[str]


def _in_folder(root: Path) -> Files:
    paths, notes = [], []
    for folder, folders, files in os.walk(root):
        for name in list(folders):
            if (Path(folder) / name).is_symlink():
                notes.append(f"{_below(root, folder, name)} is a link and was ignored.")
        folders[:] = sorted(name for name in folders if not is_noise(name))
        for name in sorted(name for name in files if not is_noise(name)):
            path = Path(folder, name)
            if path.is_symlink():
                notes.append(f"{_below(root, folder, name)} is a link and was ignored.")
            elif stat.S_ISREG(path.lstat().st_mode):
                paths.append(_below(root, folder, name))
            if len(paths) > MOST_ENTRIES:
                raise UserError(f"{root}: it has more than {MOST_ENTRIES:,} files")
    return Files(paths, lambda path, limit: bytes(read_file(root / path, limit)), notes)


def _with_inner_zip(files: Files, name: str) -> Files:
    """A submission's files, and the files in its zip: learning platforms hand out such folders."""
    inside = _in_zip(files.contents(name, LARGEST_ZIP))
    taken = set(inside.paths)
    others = [path for path in files.paths if path != name]
    prefix = "" if taken.isdisjoint(others) else f"beside {PurePosixPath(name).name}/"
    beside = {f"{prefix}{path}": path for path in others}

    def contents(path: str, limit: int) -> bytes:
        if path in beside:
            return files.contents(beside[path], limit)
        return inside.contents(path, limit)

    notes = [*files.notes, f"Your code was read from {name!r:.100}.", *inside.notes]
    return Files([*inside.paths, *beside], contents, notes)


def _below(root: Path, folder: str, name: str) -> str:
    return Path(folder, name).relative_to(root).as_posix()


def _in_zip(content: bytes) -> Files:
    if content.count(ENTRY) > MOST_ENTRIES:
        raise OSError(0, f"it has more than {MOST_ENTRIES:,} entries")
    archive = zipfile.ZipFile(io.BytesIO(content))
    entries, notes = {}, []
    for entry in archive.infolist():
        name = entry.filename.replace("\\", "/")
        parts = PurePosixPath(name).parts
        if name.startswith("/") or ".." in parts or "\0" in name or not parts:
            notes.append(f"{name!r:.100} leads out of the zip and was ignored.")
        elif stat.S_ISLNK(entry.external_attr >> 16):
            notes.append(f"{name!r:.100} is a link and was ignored.")
        elif not entry.is_dir() and not name.endswith("/") and not any(map(is_noise, parts)):
            entries["/".join(parts)] = entry

    def contents(name: str, limit: int) -> bytes:
        """Whatever size the zip's directory gives: no more than the limit is unpacked."""
        # Python's readers of other compression methods ignore the limit.
        if entries[name].compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise OSError(0, "it is not compressed as zips usually are")
        try:
            with archive.open(entries[name]) as file:
                read = file.read(limit + 1)
        except Exception as error:  # whatever zipfile raises for damaged zips
            raise OSError(0, one_line(error)) from None
        if len(read) > limit:
            raise OSError(0, f"it has more than {limit:,} bytes")
        return read

    return Files(sorted(entries), contents, notes)


NOISE = ("__MACOSX", "__pycache__", "node_modules", "venv", "site-packages")


def is_noise(name: str) -> bool:
    """Whether a file or folder of this name is not of the student's making."""
    return name in NOISE or name.startswith(".")


def _submission(name: str, path: Path, files: Files) -> Submission:
    paths = files.paths
    root = package_in(paths)
    if root is None:
        wanted = " or ".join(f"{package}/" for package in PACKAGES)
        about = f"expected a folder {wanted} with utils.py and models/"
        if notebooks := [p for p in paths if p.endswith(".ipynb")]:
            about += f"; it has {notebooks[0]:.100}, and notebooks are not graded"
        elif any(p.endswith(".py") for p in paths):
            about += f"; {LONE_FILE}"
        elif others := [p for p in paths if archive_suffix(p)]:
            about += f"; it has {others[0]:.100}: hand in one zip of the code"
        notes = [f"({note})" for note in files.notes[:3]]
        more = [f"and {len(files.notes) - 3} more"] if len(files.notes) > 3 else []
        raise UserError(" ".join([f"{path}: {about if paths else 'it is empty'}", *notes, *more]))
    notes = files.notes[:MOST_NOTES]
    if len(files.notes) > MOST_NOTES:
        notes.append(f"More files were ignored: {len(files.notes) - MOST_NOTES}.")
    chosen, others = root
    if others:
        notes.append(
            f"You handed in {len(others) + 1} copies of the code; "
            f"{chosen or 'the one at the top'} is graded."
        )
    package = chosen.rpartition("/")[2] if chosen.rpartition("/")[2] in PACKAGES else PACKAGES[0]
    prefix = f"{chosen}/" if chosen else ""
    sources, size = {}, 0
    for file in [p for p in paths if p.startswith(prefix) and p.endswith(".py")]:
        inner = f"{package}/{file.removeprefix(prefix)}"
        try:
            content = files.contents(file, LARGEST_FILE)
        except (OSError, zipfile.BadZipFile) as error:
            reason = error.strerror if isinstance(error, OSError) else one_line(error)
            notes.append(f"{inner} was ignored: {reason}.")
            continue
        size += len(content)
        if size > LARGEST_SUM or len(sources) == MOST_FILES:
            notes.append(f"{inner} and the files after it were ignored: too much code.")
            break
        sources[inner] = _decoded(content, inner, notes)
    return Submission(name, package, sources, tuple(notes), _weights(paths))


def root_of(paths: list[str]) -> str:
    """The folder above the package, with a slash; empty if it is the top, or there is none."""
    package = package_in(paths)
    above = package[0].rpartition("/")[0] if package else ""
    return f"{above}/" if above else ""


def by_importance(paths: list[str], folder: str) -> list[str]:
    """Sort paths: those in a folder beside the package first, then by depth. Others are backups."""
    own = f"{root_of(paths)}{folder}/"
    return sorted(paths, key=lambda path: (not path.startswith(own), path.count("/")))


def package_in(paths: list[str]) -> tuple[str, list[str]] | None:
    """Find the folder with utils.py and models/, if possible named in PACKAGES; and the others."""
    found, python = [], sorted(path for path in paths if path.endswith(".py"))
    for path in python:
        folder, _, file = path.rpartition("/")
        models = f"{folder}/models/" if folder else "models/"
        first = bisect.bisect_left(python, models)  # the first file in there, if there is one
        if file == "utils.py" and python[first : first + 1] and python[first].startswith(models):
            named = folder.rpartition("/")[2] in PACKAGES
            found.append((not named, folder.count("/"), folder))
    found.sort()
    return (found[0][2], [folder for _, _, folder in found[1:]]) if found else None


def _decoded(content: bytes, file: str, notes: list[str]) -> str:
    """Python's text: as its coding line says, without a byte order mark, with Unix's line ends."""
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
        if codecs.lookup(encoding).name in SLOW:
            raise LookupError(encoding)
        text = content.decode(encoding)
    except (SyntaxError, UnicodeError, LookupError):
        for mark, encoding in ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"", "latin-1")):
            if content.startswith(mark):
                text = content.decode(encoding, errors="replace")
                notes.append(f"{file} is not UTF-8; it was read as {encoding}.")
                break
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _weights(paths: list[str]) -> dict[tuple[str, int], str]:
    """Checkpoints by run and iteration: model-<iteration>.pt in the first folder of its name."""
    found, folders = {}, {}
    for path in by_importance(paths, "checkpoints"):
        above, _, file = path.rpartition("/")
        run = above.rpartition("/")[2]
        step = file.removeprefix("model-").removesuffix(".pt")
        if file == f"model-{step}.pt" and step.isdecimal() and len(step) < 12 and run:
            if folders.setdefault(run, above) == above:
                found[run, int(step)] = path
    return found


def function_in(tree: ast.Module, model: str, method: str) -> ast.FunctionDef | None:
    """Find a function, or a class's method, in a file; None if there is none."""
    owners = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == model]
    body = owners[-1].body if owners else [] if model else tree.body
    named = [n for n in body if isinstance(n, ast.FunctionDef) and n.name == method]
    return named[-1] if named else None


def is_blank(node: ast.FunctionDef) -> bool:
    """Whether its last statement still raises NotImplementedError."""
    last = node.body[-1]
    if not isinstance(last, ast.Raise):
        return False
    names = [node.id for node in ast.walk(last) if isinstance(node, ast.Name)]
    return "NotImplementedError" in names
