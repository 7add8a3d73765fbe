"""What the ledgers of the papers name exists: files, functions, classes, constants and tests."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LEDGERS = sorted((ROOT / "docs" / "papers").glob("*.md"))
REFERENCE = re.compile(r"(?P<path>[\w.-]+(?:/[\w.-]+)*/?)(?:::(?P<name>\w+(?:\.\w+)?))?")


def names_in(statements: list[ast.stmt]) -> set[str]:
    """Functions, classes, assigned names and, as `Class.name`, what a class defines, of a module's top level."""
    names: set[str] = set()
    for statement in statements:
        if isinstance(statement, ast.ClassDef):
            names |= {statement.name} | {f"{statement.name}.{name}" for name in names_in(statement.body)}
        elif isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(statement.name)
        elif isinstance(statement, ast.Assign):
            names |= {target.id for target in statement.targets if isinstance(target, ast.Name)}
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            names.add(statement.target.id)
    return names


def references(text: str) -> list[str]:
    """What stands in single backticks and looks like a path: it has a slash, a double colon or a known suffix."""
    quoted = re.findall(r"`([^`\n]+)`", text)
    return [word for word in quoted if "/" in word or "::" in word or re.search(r"\.(py|ya?ml|md|toml|json)$", word)]


def problem_of(reference: str, root: Path) -> str | None:
    """Why a reference leads nowhere; None if it leads somewhere."""
    match = REFERENCE.fullmatch(reference)
    if match is None:
        return f"{reference}: expected path or path::name"
    path, name = root / match["path"], match["name"]
    if not path.exists():
        return f"{reference}: no such file"
    if name is None:
        return None
    if path.suffix != ".py":
        return f"{reference}: names are looked up in Python files only"
    if name not in names_in(ast.parse(path.read_text()).body):
        return f"{reference}: no such name in the file"
    return None


def rows_of(text: str) -> list[list[str]]:
    """The cells of every row of every table, headings and rules included."""
    return [line.strip().strip("|").split("|") for line in text.splitlines() if line.startswith("|")]


def test_there_are_ledgers():
    assert LEDGERS


@pytest.mark.parametrize("ledger", LEDGERS, ids=lambda path: path.stem)
def test_everything_a_ledger_names_exists(ledger):
    named = references(ledger.read_text())
    problems = [problem for problem in (problem_of(reference, ROOT) for reference in named) if problem]
    assert not problems, "\n".join(problems)
    assert any(reference.startswith("src/panoptic/") and "::" in reference for reference in named)
    assert any(reference.startswith("tests/") and "::" in reference for reference in named)


@pytest.mark.parametrize("ledger", LEDGERS, ids=lambda path: path.stem)
def test_every_row_has_paper_code_test_and_deviation(ledger):
    rows = rows_of(ledger.read_text())
    assert rows
    assert [row for row in rows if len(row) != 4 or not all(cell.strip() for cell in row[:3])] == []


@pytest.fixture
def small_root(tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "some.py").write_text(
        "LIMIT: int = 3\nRATE = 2\n\ndef fuse():\n    inner = 1\n\nclass Head:\n    def losses(self):\n        pass\n"
    )
    (tmp_path / "plain.yaml").write_text("fuse: 1\n")
    return tmp_path


@pytest.mark.parametrize(
    "reference",
    ["src/some.py", "src/", "plain.yaml", "src/some.py::fuse", "src/some.py::Head.losses", "src/some.py::LIMIT"],
)
def test_what_exists_is_no_problem(reference, small_root):
    assert problem_of(reference, small_root) is None


@pytest.mark.parametrize(
    ("reference", "problem"),
    [
        ("src/other.py", "no such file"),
        ("src/other.py::fuse", "no such file"),
        ("other.yaml", "no such file"),
        ("src/some.py::fus", "no such name in the file"),
        ("src/some.py::losses", "no such name in the file"),
        ("src/some.py::inner", "no such name in the file"),
        ("src/some.py::Head.fuse", "no such name in the file"),
        ("plain.yaml::fuse", "names are looked up in Python files only"),
        ("src/some.py :: fuse", "expected path or path::name"),
        ("src/some.py::", "expected path or path::name"),
    ],
)
def test_what_does_not_exist_is_a_problem(reference, problem, small_root):
    assert problem_of(reference, small_root) == f"{reference}: {problem}"


def test_only_what_looks_like_a_path_is_a_reference():
    text = "`min_area` of `src/a.py::b`, see `x.yaml`,\n| `tests/c.py` | src/unquoted.py | `::lost` |"
    assert references(text) == ["src/a.py::b", "x.yaml", "tests/c.py", "::lost"]


def test_a_row_with_a_cell_too_many_is_seen():
    assert [len(row) for row in rows_of("text\n| a | b |\n|---|---|\n| `x|y` | c |\n")] == [2, 2, 3]
