"""Read a submission once, from a zip or a folder, into memory. Nothing is unpacked to disk."""

import hashlib
import io
import stat
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath

from codebase.homework.handout.submit import function_in, is_blank
from codebase.homework.problems import PROBLEMS
from codebase.machine.files import one_line
from codebase.project import UserError

PACKAGES = ("codebase", "submission")  # the homework's, and its successor's
GENERIC = ("hw", "hw2", "homework", "homework2", "submission", "cs236")  # names of zips
ANSWERS = (".pdf", ".md", ".txt", ".docx", ".png", ".jpg", ".jpeg")
NOISE = ("__MACOSX", "__pycache__", "node_modules", "venv", "site-packages")
LARGEST, MOST = 512 << 20, 20_000  # bytes of everything that is read, and files
LARGEST_PYTHON = 1 << 18  # bytes of a file
MOST_NOTES, MOST_COPIES = 20, 10
USUAL = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others may unpack more than the zip says
NO_CODE = (
    "expected a folder codebase/ or submission/ with utils.py and models/, in one zip; notebooks "
    "and single files are not graded"
)
Files = dict[str, Callable[[], bytes]]  # by path: reads a file


@dataclass(frozen=True)
class Submission:
    """A submission.

    Args:
        name: name of the zip or folder
        package: name by which its modules import one another, "codebase" or "submission"
        sources: contents of Python files, keyed by paths such as codebase/models/vae.py; empty if
            there is nothing to grade
        notes: sentences about ignored or repaired files
        copies: a sentence for the teacher if there were several copies of the code, else empty
        files: contents of answers and weights, keyed by path
        root: the folder above the package, with a trailing slash; empty if there is none
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
        """A hash of the code; submissions with the same code get the same marks."""
        content = repr((self.package, sorted(self.sources.items()))).encode(errors="replace")
        return hashlib.sha256(content).hexdigest()

    def helped(self, helpers: Mapping[str, str], broken: Collection[str]) -> "Submission":
        """Return the submission with this project's helper functions.

        Args:
            helpers: sources, keyed by path relative to the package. The functions in utils.py are
                added to the submission's utils.py; other files replace the submission's files
            broken: files that cannot be imported; if utils.py is one of them, it is replaced
        """
        sources = dict(self.sources)
        for name, text in helpers.items():
            path = f"{self.package}/{name}"
            own = sources.get(path, "") if name == "utils.py" and path not in broken else ""
            sources[path] = f"{own}\n\n" + text.replace("from codebase", f"from {self.package}")
        return replace(self, sources=sources)


@dataclass(frozen=True)
class Entry:
    """The location of a submission: a zip or folder, or a zip in the zip of a class."""

    path: Path
    inner: str = ""

    @property
    def name(self) -> str:
        """The submission's name: its folder name, or its zip name without the suffix."""
        inner = PurePosixPath(self.inner)
        if self.inner and inner.parent.name and inner.stem.lower() in GENERIC:
            return inner.parent.name
        own = self.path.resolve()
        return inner.stem if self.inner else own.name if own.is_dir() else own.stem

    def __str__(self) -> str:
        return str(self.path / self.inner)


def is_noise(name: str) -> bool:
    """Return whether a file or folder of this name is not the student's work."""
    return name in NOISE or name.strip().startswith(".")


def _is_zip(path: Path) -> bool:
    return path.suffix.lower() == ".zip" and not path.is_dir()


def entries(path: Path) -> tuple[list[Entry], list[str]]:
    """Find submissions: a single one, or the members of a class's folder or zip.

    Returns:
        (found, skipped): the submissions; and a line for each other member of a class

    Raises:
        UserError: there is nothing at the path
    """
    if not path.exists():
        raise UserError(f"{path}: there is no such zip or folder")
    if path.is_dir() and not any((path / name / "utils.py").exists() for name in (*PACKAGES, "")):
        members = sorted(path.iterdir())
        if not members:
            raise UserError(f"{path} is empty: pass a zip, a submission or a folder of them")
        named = [one for one in members if not is_noise(one.name)]
        folders = [one for one in named if one.is_dir()]
        kept = [one for one in named if one.is_dir() or _is_zip(one)]
        zipped = len(folders) == 1 and any(map(_is_zip, folders[0].iterdir()))
        if len(kept) > len(folders) or len(folders) > 1 or zipped:
            others = [one for one in members if one not in kept]
            skipped = [f"{one}: skipped, not a zip or folder of a submission" for one in others]
            return [Entry(one) for one in kept], skipped
    if path.is_file() and zipfile.is_zipfile(path):
        files, _ = _in_zip(path)
        zips = [inner for inner in files if inner.lower().endswith(".zip")]
        if len(zips) > 1 and _packages(files):
            return [Entry(path)], [f"{path} has zips beside its code: if it is a class, unpack it"]
        if len(zips) > 1:
            rest = [inner for inner in files if inner not in zips]
            skipped = [f"{path}, {inner}: skipped, not a zip of a submission" for inner in rest]
            return [Entry(path, inner) for inner in zips], skipped
    return [Entry(path)], []


def read(entry: Entry, weights: bool = False) -> Submission:
    """Read a submission. If it has one zip and no package, read the package in the zip.

    Args:
        entry: the submission's location
        weights: whether to read the weights of runs too

    Raises:
        UserError: the submission is neither a zip nor a folder, or cannot be read
    """
    try:
        path = entry.path
        files, notes = _in_folder(path) if path.is_dir() else _in_zip(path)
        if entry.inner:
            path = path / entry.inner
            files, notes = _in_zip(path, files[entry.inner]())
        zips = [inner for inner in files if inner.lower().endswith(".zip")]
        if len(zips) == 1 and not _packages(files):
            inside, more = _in_zip(path, files.pop(zips[0])())
            notes += [f"Your code was read from {zips[0]!r:.100}.", *more]
            files = {f"beside/{inner}": one for inner, one in files.items()} | inside
        return _submission(entry, files, notes, weights)
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{entry}: it cannot be read: {one_line(error)}") from None


def _in_folder(root: Path) -> tuple[Files, list[str]]:
    files: Files = {}
    notes, size = [], 0
    for path in _below(root):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            notes.append(f"{name} is a link and was ignored.")
        elif path.is_file():
            files[name] = path.read_bytes
            size += path.stat().st_size
    _check(len(files), size)
    return files, notes


def _below(folder: Path) -> Iterator[Path]:
    """Yield the files and links below a folder."""
    for path in sorted(folder.iterdir()):
        if not is_noise(path.name):
            yield from _below(path) if path.is_dir() and not path.is_symlink() else [path]


def _in_zip(path: Path, content: bytes | None = None) -> tuple[Files, list[str]]:
    """Return the files of a zip, or of the zip in a zip with this content."""
    try:
        archive = zipfile.ZipFile(path if content is None else io.BytesIO(content))
    except Exception as error:  # whatever zipfile raises for damaged zips
        raise UserError(f"{path}: it cannot be read: {one_line(error)}") from None
    files: Files = {}
    notes, size = [], 0
    for one in archive.infolist():
        name = one.filename.replace("\\", "/").lstrip("/")
        if name.endswith("/") or any(map(is_noise, PurePosixPath(name).parts)):  # .. is noise, too
            continue
        if stat.S_ISLNK(one.external_attr >> 16) or one.compress_type not in USUAL:
            notes.append(f"{name!r:.100} is a link, or packed in an unusual way, and was ignored.")
        else:
            files[PurePosixPath(name).as_posix()] = partial(_member, archive, one)
            size += 0 if name.lower().endswith(".zip") else one.file_size  # a class's may be large
    _check(len(files), size)
    return dict(sorted(files.items())), notes


def _member(archive: zipfile.ZipFile, one: zipfile.ZipInfo) -> bytes:
    """Read a member of a zip, up to the size that the zip's directory states."""
    _check(1, one.file_size)
    with archive.open(one) as file:
        return file.read(one.file_size)


def _check(count: int, size: int) -> None:
    if count > MOST or size > LARGEST:
        raise UserError(
            f"it has {count:,} files of {size:,} bytes, expected at most {MOST:,} and {LARGEST:,}"
        )


def _packages(paths: Collection[str]) -> list[str]:
    """Return folders with utils.py and models/, sorted by package name, then by depth."""
    python = [path for path in paths if path.endswith(".py")]
    above = {str(parent) for path in python for parent in PurePosixPath(path).parents}
    found = []
    for path in python:
        folder, slash, file = path.rpartition("/")
        if file == "utils.py" and f"{folder}{slash}models" in above:
            named = folder.rpartition("/")[2] in PACKAGES
            found.append((not named, folder.count("/"), folder))
    return [folder for *_, folder in sorted(found)]


def _submission(entry: Entry, files: Files, notes: list[str], weights: bool) -> Submission:
    contents: dict[str, bytes] = {}
    for path, content_of in files.items():
        if path.lower().endswith((*ANSWERS, ".py", *([".pt"] if weights else []))):
            try:
                contents[path] = content_of()
            except Exception as error:  # a damaged file costs itself alone
                notes.append(f"{path!r:.100} was ignored: {one_line(error)}.")
                continue
            if path.endswith(".py") and len(contents[path]) > LARGEST_PYTHON:
                del contents[path]
                notes.append(f"{path!r:.100} was ignored: it is too large for code.")
    answers = {path: one for path, one in contents.items() if not path.endswith(".py")}
    packages = _packages(files)[:MOST_COPIES]
    if not packages:
        about = " ".join([NO_CODE, *(f"({one})" for one in notes[:3])])
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
    above, slash, last = chosen.rpartition("/")
    package, prefix = (last if last in PACKAGES else PACKAGES[0]), f"{chosen}/" if chosen else ""
    sources = {}
    for path, content in contents.items():
        if path.startswith(prefix) and path.endswith(".py"):
            inner = f"{package}/{path.removeprefix(prefix)}"
            text = content.decode("utf-8-sig", errors="replace")
            if "\ufffd" in text:
                notes.append(f"{inner} is not UTF-8; what cannot be read was replaced.")
            sources[inner] = text.replace("\r\n", "\n").replace("\r", "\n")
    told = tuple(filter(None, (*notes[:MOST_NOTES], copies)))
    return Submission(entry.name, package, sources, told, copies, answers, above + slash)


def _written(folder: str, contents: Mapping[str, bytes]) -> int:
    """Count the graded functions written in a copy of the code."""
    count = 0
    for problem in PROBLEMS:
        path = f"{folder}/{problem.file}" if folder else problem.file
        node = function_in(contents.get(path, b""), problem.model, problem.method)
        count += node is not None and not is_blank(node)
    return count
