"""What a student handed in: read once, from a zip or a folder, into memory. Nothing is unpacked."""

import ast
import hashlib
import io
import os
import stat
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from codebase.homework.problems import PROBLEMS
from codebase.machine.files import one_line
from codebase.project import UserError

PACKAGES = ("codebase", "submission")  # the homework's, and its successor's
GENERIC = ("hw", "hw2", "homework", "homework2", "submission", "cs236")  # names of zips
OTHER_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".rar", ".7z")
ANSWERS = (".pdf", ".md", ".txt", ".docx", ".png", ".jpg", ".jpeg")
OF_RUNS = (".pt", "results.json")
NOISE = ("__MACOSX", "__pycache__", "node_modules", "venv", "site-packages")
LARGEST, MOST = 512 << 20, 20_000  # bytes of everything that is read, and files
LARGEST_PYTHON = 1 << 20  # bytes of a file
MOST_NOTES = 20
LONE_FILE = "one file is not enough: hand in the zip that `python -m codebase submit` creates"
Files = dict[str, Callable[[], bytes]]  # by path: reads a file


@dataclass(frozen=True)
class Submission:
    """A submission.

    Args:
        name: name of the zip or folder
        package: name by which its modules import one another, "codebase" or "submission"
        sources: contents of Python files, by paths such as codebase/models/vae.py
        notes: sentences about what was left out or mended
        copies: a sentence for the teacher if there were several copies of the code, else empty
        files: contents of answers, and of runs' weights and results, by path
        root: the folder above the package, with a slash; empty if there is none
    """

    name: str
    package: str = PACKAGES[0]
    sources: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    copies: str = ""
    files: Mapping[str, bytes] = field(default_factory=dict)
    root: str = ""

    @property
    def digest(self) -> str:
        """A hash of the code: two submissions of the same code get the same marks."""
        content = repr((self.package, sorted(self.sources.items()))).encode(errors="replace")
        return hashlib.sha256(content).hexdigest()

    @property
    def is_code(self) -> bool:
        """Whether there is code that can be graded."""
        return bool(self.sources)


@dataclass(frozen=True)
class Entry:
    """Where a submission is: a zip or folder, or a zip in the zip of a class."""

    path: Path
    inner: str = ""

    @property
    def name(self) -> str:
        """A submission's name: its folder's, or its archive's without the suffix."""
        inner = PurePosixPath(self.inner)
        if self.inner and inner.parent.name and inner.stem.lower() in GENERIC:
            return inner.parent.name
        return without_suffix(
            inner.name if self.inner else self.path.name or self.path.resolve().name
        )


def without_suffix(name: str) -> str:
    """Return a name without the suffix of an archive, in any case."""
    ends = (end for end in (".zip", *OTHER_ARCHIVES) if name.lower().endswith(end))
    end = next(ends, "")
    return name[: -len(end)] if end and len(name) > len(end) else name


def is_noise(name: str) -> bool:
    """Whether a file or folder of this name is not of the student's making."""
    return name in NOISE or name.startswith(".")


def has_package(folder: Path) -> bool:
    """Whether the homework's code is at the top of a folder."""
    names = (*PACKAGES, "")
    return folder.is_dir() and any((folder / name / "utils.py").exists() for name in names)


def is_archive(path: Path) -> bool:
    """Whether a file's name is an archive's, or a zip's."""
    return not path.is_dir() and without_suffix(path.name) != path.name


def entries(path: Path) -> tuple[list[Entry], list[str]]:
    """Find submissions: one, or the members of a class's folder or zip.

    Returns:
        (found, skipped): the submissions; and a line for each other member of a class

    Raises:
        UserError: there is nothing at the path
    """
    if not path.exists():
        raise UserError(f"{path}: there is no such zip or folder")
    if path.is_dir() and not has_package(path):
        members = sorted(path.iterdir())
        if not members:
            raise UserError(f"{path} is empty: pass a zip, a submission or a folder of them")
        kept = [one for one in members if not is_noise(one.name)]
        kept = [one for one in kept if one.is_dir() or is_archive(one)]
        folders = [one for one in kept if one.is_dir()]
        several = len(folders) > 1 and any(map(_is_like_one, folders))
        if len(folders) < len(kept) or several or any(map(is_archive, _members(folders))):
            others = [one for one in members if one not in kept]
            skipped = [f"{one}: skipped, not a zip or folder of a submission" for one in others]
            return [Entry(one) for one in kept], skipped
    if path.is_file() and path.suffix.lower() == ".zip":
        try:
            files, _ = _in_zip(path.read_bytes())
        except (OSError, UserError, zipfile.BadZipFile, ValueError, NotImplementedError):
            return [Entry(path)], []  # reading it says why
        zips = [inner for inner in files if inner.lower().endswith(".zip")]
        if len(zips) > 1 and not _packages(list(files)):
            others = [inner for inner in files if inner not in zips]
            skipped = [f"{path}, {inner}: skipped, not a zip of a submission" for inner in others]
            found = [Entry(path, inner) for inner in zips]
            if len({one.name for one in found}) < len(found):  # as learning platforms name them
                raise UserError(f"{path}: two of its zips have one name: unpack it, and rename one")
            return found, skipped
    return [Entry(path)], []


def _members(folders: list[Path]) -> list[Path]:
    return [one for folder in folders[:1] if os.access(folder, os.R_OK) for one in folder.iterdir()]


def _is_like_one(folder: Path) -> bool:
    """Whether a folder has the homework's code or an archive, at its top or one level down."""
    inside = [folder, *folder.glob("*")]
    return any(map(has_package, inside)) or any(map(is_archive, inside))


def read(entry: Entry, weights: bool = False) -> Submission:
    """Read a submission; if it has no package but one zip, the package in the zip.

    Args:
        entry: where it is
        weights: whether the weights and results of runs are read, too

    Raises:
        UserError: it is neither a zip nor a folder, or cannot be read
    """
    path = entry.path
    if path.is_file() and path.suffix == ".py":
        raise UserError(f"{path}: {LONE_FILE}")
    if is_archive(path) and not path.name.lower().endswith(".zip"):
        raise UserError(f"{path}: only zips and folders can be read: hand in a .zip")
    try:
        if path.is_dir():
            files, notes = _in_folder(path)
        elif path.is_file():
            files, notes = _in_zip(path.read_bytes())
        else:
            raise UserError(f"{path}: there is no such zip or folder")
        if entry.inner:
            files, notes = _in_zip(files[entry.inner]())
        zips = [inner for inner in files if inner.lower().endswith(".zip")]
        if len(zips) == 1 and not _packages(list(files)):
            inside, more = _in_zip(files[zips[0]]())
            notes += [f"Your code was read from {zips[0]!r:.100}.", *more]
            prefix = f"beside {PurePosixPath(zips[0]).name}/"
            beside = {inner: files[inner] for inner in files if inner not in zips}
            files = inside | {
                (prefix + inner if inner in inside else inner): one for inner, one in beside.items()
            }
        return _submission(entry, files, notes, weights)
    except (UserError, MemoryError):
        raise
    except Exception as error:  # whatever zipfile raises for damaged zips
        raise UserError(f"{path}: it cannot be read: {one_line(error)}") from None


def _in_folder(root: Path) -> tuple[Files, list[str]]:
    files: Files = {}
    notes = []
    for above, folders, names in os.walk(root):
        folder = Path(above)
        links = [name for name in (*folders, *names) if (folder / name).is_symlink()]
        notes += [
            f"{(folder / name).relative_to(root)} is a link and was ignored." for name in links
        ]
        folders[:] = sorted(name for name in folders if not is_noise(name) and name not in links)
        for name in sorted(names):
            if name not in links and not is_noise(name) and (folder / name).is_file():
                files[(folder / name).relative_to(root).as_posix()] = (folder / name).read_bytes
    _check(len(files), sum((root / path).stat().st_size for path in files))
    return files, notes


def _in_zip(content: bytes) -> tuple[Files, list[str]]:
    archive = zipfile.ZipFile(io.BytesIO(content))
    files: Files = {}
    notes = []
    size = 0
    for one in archive.infolist():
        name = one.filename.replace("\\", "/")
        parts = PurePosixPath(name).parts
        # Python's readers of other compression methods may unpack more than the directory says.
        usual = one.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        if name.startswith("/") or ".." in parts or "\0" in name or not parts:
            notes.append(f"{name!r:.100} leads out of the zip and was ignored.")
        elif stat.S_ISLNK(one.external_attr >> 16) or not usual:
            why = "is not compressed as zips usually are" if not usual else "is a link"
            notes.append(f"{name!r:.100} {why} and was ignored.")
        elif not one.is_dir() and not name.endswith("/") and not any(map(is_noise, parts)):
            files["/".join(parts)] = lambda one=one: archive.read(one)
            size += one.file_size
    _check(len(files), size)
    return dict(sorted(files.items())), notes


def _check(count: int, size: int) -> None:
    if count > MOST or size > LARGEST:
        raise UserError(
            f"it has {count:,} files of {size:,} bytes, expected at most {MOST:,} and {LARGEST:,}"
        )


def _packages(paths: list[str]) -> list[str]:
    """Folders with utils.py and models/, those named as packages and the highest first."""
    python = {path for path in paths if path.endswith(".py")}
    above = {parent for path in python for parent in map(str, PurePosixPath(path).parents)}
    found = []
    for path in python:
        folder, slash, file = path.rpartition("/")
        if file == "utils.py" and f"{folder}{slash}models" in above:
            named = folder.rpartition("/")[2] in PACKAGES
            found.append((not named, folder.count("/"), folder))
    return [folder for *_, folder in sorted(found)]


def _submission(entry: Entry, files: Files, notes: list[str], weights: bool) -> Submission:
    packages = _packages(list(files))
    contents: dict[str, bytes] = {}
    for path, contents_of in files.items():
        kind = (*ANSWERS, ".py", *(OF_RUNS if weights else ()))
        if path.lower().endswith(kind):
            try:
                contents[path] = contents_of()
                if path.endswith(".py") and len(contents[path]) > LARGEST_PYTHON:
                    del contents[path]
                    notes.append(f"{path!r:.100} was ignored: it is larger than 1 MB.")
            except Exception as error:  # a damaged file costs itself alone
                notes.append(f"{path!r:.100} was ignored: {one_line(error)}.")
    answers = {path: one for path, one in contents.items() if not path.endswith(".py")}
    if not packages:
        wanted = " or ".join(f"{package}/" for package in PACKAGES)
        about = f"expected a folder {wanted} with utils.py and models/"
        if notebooks := [path for path in files if path.endswith(".ipynb")]:
            about += f"; it has {notebooks[0]:.100}, and notebooks are not graded"
        elif sum(path.endswith(".py") for path in files) == 1:
            about += f"; {LONE_FILE}"
        elif others := [path for path in files if without_suffix(path) != path]:
            about += f"; it has {others[0]:.100}: hand in one zip of the code"
            about += ", or grade it by itself if it is a class's" if len(others) > 1 else ""
        about = " ".join([about if files else "it is empty", *(f"({one})" for one in notes[:3])])
        return Submission(entry.name, notes=(about,), files=answers)
    written = {folder: _written(folder, contents) for folder in packages}
    chosen = max(packages, key=written.__getitem__)
    copies = ""
    if len(packages) > 1:
        which = repr(chosen or "the one at the top")[:100]
        copies = (
            f"There are {len(packages)} copies of the code; {which} is graded. No other copy has "
            f"more functions written ({written[chosen]})."
        )
    last = chosen.rpartition("/")[2]
    package, prefix = (last if last in PACKAGES else PACKAGES[0]), f"{chosen}/" if chosen else ""
    sources = {}
    for path, content in contents.items():
        if path.startswith(prefix) and path.endswith(".py"):
            inner = f"{package}/{path.removeprefix(prefix)}"
            text = content.decode("utf-8-sig", errors="replace")
            if "\ufffd" in text:
                notes.append(f"{inner} is not UTF-8; what cannot be read was replaced.")
            sources[inner] = text.replace("\r\n", "\n").replace("\r", "\n")
    if len(notes) > MOST_NOTES:
        notes[MOST_NOTES:] = [f"More files were ignored: {len(notes) - MOST_NOTES}."]
    above = chosen.rpartition("/")[0]
    return Submission(
        entry.name,
        package,
        sources,
        (*notes, copies) if copies else tuple(notes),
        copies,
        answers,
        f"{above}/" if above else "",
    )


def _written(folder: str, contents: Mapping[str, bytes]) -> int:
    """How many graded functions a copy of the code has written."""
    count = 0
    for problem in PROBLEMS:
        path = f"{folder}/{problem.file}" if folder else problem.file
        node = function_in(parsed(contents.get(path, b"")), problem.model, problem.method)
        count += node is not None and not is_blank(node)
    return count


def parsed(source: bytes | str) -> ast.Module:
    """A file's syntax tree, empty if it has none."""
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ast.Module([], [])


def function_in(tree: ast.Module, model: str, method: str) -> ast.FunctionDef | None:
    """Find a function, or a class's method, in a file; None if there is none."""
    owners = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == model]
    body = owners[-1].body if owners else [] if model else tree.body
    named = [n for n in body if isinstance(n, ast.FunctionDef) and n.name == method]
    return named[-1] if named else None


def is_blank(node: ast.FunctionDef) -> bool:
    """Whether its last statement still raises NotImplementedError."""
    last = node.body[-1]
    return isinstance(last, ast.Raise) and any(
        isinstance(one, ast.Name) and one.id == "NotImplementedError" for one in ast.walk(last)
    )


def by_importance(paths: list[str], root: str, folder: str) -> list[str]:
    """Sort paths: those in a folder beside the package first, then by depth. Others are backups."""
    own = f"{root}{folder}/"
    return sorted(paths, key=lambda path: (not path.startswith(own), path.count("/"), path))
