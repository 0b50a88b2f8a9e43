"""Similar submissions: fingerprints of their graded functions (winnowing, Schleimer et al. 2003).

Names, layout and comments do not count. Common code counts little; rare code counts much.
"""

import ast
import math
import zlib
from collections import Counter
from itertools import combinations
from pathlib import Path

from codebase.homework import submission
from codebase.homework.problems import PROBLEMS
from codebase.project import UserError

SIMILAR = 0.6  # weighted share of the larger submission's fingerprints that is worth a look
EVIDENCE = 20.0  # nats of rarity; below this, the shared code is too short or too common
LENGTH, WINDOW = 6, 4  # tokens per fingerprint, and fingerprints of which one is kept
Cluster = tuple[list[str], float, float]


def clusters(found: dict[str, Path]) -> list[Cluster]:
    """Find groups of similar submissions, the most similar first.

    Args:
        found: paths by name

    Returns:
        (names, least, most): the names, and the least and the largest similarity of a similar pair
    """
    prints = {name: fingerprints(path) for name, path in sorted(found.items())}
    count = Counter(one for own in prints.values() for one in own)
    weight = {one: math.log((len(prints) + 1) / number) for one, number in count.items()}

    def total(some: set) -> float:
        return math.fsum(weight[one] for one in some)  # in any order of the set

    totals = {name: total(own) for name, own in prints.items()}
    similar = {}
    for one, other in combinations(prints, 2):
        shared, largest = total(prints[one] & prints[other]), max(totals[one], totals[other])
        if shared >= max(EVIDENCE, SIMILAR * largest):
            similar[one, other] = shared / largest
    groups = {name: {name} for name in prints}
    for one, other in similar:
        merged = groups[one] | groups[other]
        for name in merged:
            groups[name] = merged
    together = {frozenset(group) for group in groups.values() if len(group) > 1}
    listed = []
    for group in together:
        shares = [share for pair, share in similar.items() if group.issuperset(pair)]
        listed.append((sorted(group), min(shares), max(shares)))
    return sorted(listed, key=lambda one: (-one[2], one[0]))


def fingerprints(path: Path) -> set[tuple[str, int]]:
    """Hash the graded functions that a submission has written: (function, hash) pairs."""
    try:
        handed_in = submission.read(path)
    except UserError:
        return set()
    found = set()
    for problem in PROBLEMS:
        source = handed_in.sources.get(f"{handed_in.package}/{problem.file}", "")
        try:
            tree = ast.parse(source)
            node = submission.function_in(tree, problem.model, problem.method)
            tokens = [] if node is None or submission.is_blank(node) else list(_tokens(node))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        grams = [" ".join(tokens[i : i + LENGTH]) for i in range(len(tokens) - LENGTH + 1)]
        hashes = [zlib.crc32(gram.encode(errors="replace")) for gram in grams]
        for i in range(max(len(hashes) - WINDOW + 1, 0)):
            found.add((problem.function, min(hashes[i : i + WINDOW])))
    return found


def _tokens(node: ast.FunctionDef):
    """A function's syntax tree in order, its own names by the order in which they come."""
    numbers: dict[str, int] = {}
    body = node.body
    if isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        body = body[1:]  # the docstring

    def visit(inner: ast.AST):
        if isinstance(inner, ast.Name):
            yield f"name {numbers.setdefault(inner.id, len(numbers))}"
        elif isinstance(inner, ast.Constant):  # an integer may have more digits than repr allows
            yield hex(inner.value) if type(inner.value) is int else repr(inner.value)
        elif not isinstance(inner, ast.expr_context):
            yield f"{type(inner).__name__} {getattr(inner, 'attr', '')}"
        for child in ast.iter_child_nodes(inner):
            yield from visit(child)

    for statement in body:
        yield from visit(statement)
