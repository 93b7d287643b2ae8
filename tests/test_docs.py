"""What the README and the docs say about the code, and the rules of CONTRIBUTING.md that a program can check."""

import ast
import functools
import re
import sys
from pathlib import Path

import pytest
from helpers import names_of_tests

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
CORE = {"main.py": 60, "model.py": 140, "train.py": 170, "utils.py": 200}  # lines, at most
WINGS = ("support", "pictures", "variants", "explorer", "inference", "studies", "benchmarks")
SOURCES = [ROOT / name for name in CORE] + sorted(path for wing in WINGS for path in (ROOT / wing).rglob("*.py"))
# Imports run from a later room to an earlier one, or stay in a room.
ROOMS = (
    ("model.py", "utils.py", "support/errors.py", "support/run/config.py"),
    ("variants/", "support/"),
    ("pictures/", "explorer/", "inference/", "train.py"),
    ("main.py",),
    ("studies/", "benchmarks/"),
)
LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"")


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def read(path):
    return path.read_text(encoding="utf-8")


@functools.cache
def syntax(path):
    """The syntax tree of a Python file."""
    return ast.parse(read(path))


def anchors(page):
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", read(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    links = [first or second for first, second in LINK.findall(read(page))]
    broken = []
    for link in links:
        if re.match(r"https?://|mailto:", link):
            continue
        place, _, anchor = link.partition("#")
        target = (page.parent / place) if place else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_readme_links_to_every_wing_and_page():
    readme = read(ROOT / "README.md")
    for target in (*CORE, *WINGS, *(name_of(page) for page in (ROOT / "docs").glob("*.md"))):
        assert f"]({target})" in readme, target


def test_readme_has_at_most_150_lines():
    assert len(read(ROOT / "README.md").splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_functions_that_pages_name_exist(page):
    """A link such as [`VAE.encode`](../model.py) names a function or class of the file that it leads to."""
    for names, link in re.findall(r"\[`([\w.]+)`\]\(([^)#]+\.py)\)", read(page)):
        path = (page.parent / link).resolve()
        if names in (path.stem, path.name, name_of(path)):
            continue
        place = syntax(path)
        for name in names.removeprefix(f"{path.stem}.").split("."):
            found = [node for node in place.body if getattr(node, "name", None) == name]
            assert found, f"{names} is not in {link}"
            place = found[0]


def test_tests_that_pages_name_exist():
    """A test's name stands alone between backticks; so does test_set, which is a folder's."""
    named = {name for page in PAGES for name in re.findall(r"`(test_\w+)`", read(page))} - {"test_set"}
    assert len(named) > 100
    assert named - names_of_tests() == set()


def test_paper_page_names_the_functions_of_the_paper():
    paper = read(ROOT / "docs" / "paper.md")
    for name in ("VAE.encode", "VAE.reparameterize", "VAE.decode", "VAE.forward", "bce", "kld"):
        assert f"[`{name}`](../model.py)" in paper
    for name in ("step", "train_epoch", "epochs"):
        assert f"[`{name}`](../train.py)" in paper


def test_readme_has_the_lines_of_the_core():
    text = " ".join(read(ROOT / "README.md").split())
    lines = {name: len(read(ROOT / name).splitlines()) for name in CORE}
    for name, n in lines.items():
        assert f"| [`{name}`]({name}) | {n} |" in text
    assert f"its core is four files of {sum(lines.values())} lines in all" in text


def test_readme_example_runs(finished_run, small_mnist):
    blocks = re.findall(r"^```python\n(.*?)^```", read(ROOT / "README.md"), re.MULTILINE | re.DOTALL)
    (example,) = [block for block in blocks if "load_model" in block]
    example = example.replace('"results/best.pt"', repr(str(finished_run.folder / "best.pt")))
    example = example.replace('"data"', repr(str(small_mnist)))
    names = {}
    exec(example, names)
    assert names["mu"].shape == names["logvar"].shape == (60, 2)
    assert names["reconstructions"].shape == (60, 784)
    assert names["new_digits"].shape == (64, 784)


def test_experiment_of_the_docs_trains(small_mnist, monkeypatch):
    (example,) = re.findall(r"^```python\n(.*?)^```", read(ROOT / "docs" / "extending.md"), re.MULTILINE | re.DOTALL)
    monkeypatch.setattr(sys, "argv", ["experiment.py", "--data_dir", str(small_mnist), "--epochs", "3"])
    names = {}
    exec(example, names)
    first, *_, last = names["run"].history
    assert last["train_total"] < first["train_total"]


def table_of_results(page):
    """The rows of a page's table of results, without their names, as lists of cells."""
    rows = [line.split(" | ")[1:] for line in read(page).splitlines() if line.startswith("| ") and "784-" in line]
    return [[cell.strip(" |") for cell in row] for row in rows if not row[0].startswith("784-400-40")]


def test_korean_summary_has_the_figures_of_the_readme():
    korean = ROOT / "docs" / "ko.md"
    assert len(read(korean).splitlines()) <= 120
    assert table_of_results(korean) == table_of_results(ROOT / "README.md")
    known = [ROOT / name for name in ("README.md", "docs/studies.md", "docs/results.md")]
    for figure in (r"\d+\.\d+ ± \d+\.\d+", r"\d+\.\d+"):
        assert figures(figure, korean) <= figures(figure, *known)
    training, testing = re.findall(r"^(pip install .*)$", read(ROOT / "README.md"), re.MULTILINE)
    assert f"\n{training}\n" in read(korean)
    assert f"\n{testing}\n" in read(korean)


def figures(pattern, *pages):
    """The texts on the pages that match a pattern, wherever a line ends."""
    return {text for page in pages for text in re.findall(pattern, " ".join(read(page).split()))}


def test_core_keeps_to_its_lines():
    lines = {name: len(read(ROOT / name).splitlines()) for name in CORE}
    assert {name: n for name, n in lines.items() if n > CORE[name]} == {}
    assert sum(lines.values()) <= 560


def test_support_keeps_to_its_lines():
    assert sum(len(read(path).splitlines()) for path in (ROOT / "support").rglob("*.py")) <= 2500


def test_functions_have_at_most_50_lines():
    functions = [
        (f"{name_of(path)}:{node.name}", node.end_lineno - node.lineno + 1)
        for path in SOURCES
        for node in ast.walk(syntax(path))
        if isinstance(node, ast.FunctionDef)
    ]
    assert len(functions) > 100
    assert [function for function in functions if function[1] > 50] == []


def imports(path):
    """The files of this project that a file imports, also inside functions, by their names below the root."""
    found = set()
    for node in ast.walk(syntax(path)):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module] + [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for module in modules:
            place = ROOT.joinpath(*module.split("."))
            found.update(target for target in (place.with_suffix(".py"), place / "__init__.py") if target.exists())
    return {name_of(target) for target in found} - {name_of(path)}


def test_imports_have_no_circle():
    """Take away again and again the files that import none of the others: nothing may be left."""
    left = {name_of(path): imports(path) for path in SOURCES}
    while free := [name for name, needed in left.items() if not needed & left.keys()]:
        for name in free:
            del left[name]
    assert left == {}


def room(name):
    """The number of the room in ROOMS that a file is in."""
    return next(i for i, places in enumerate(ROOMS) for place in places if name.startswith(place))


def test_imports_run_one_way():
    arrows = [(name_of(path), target) for path in SOURCES for target in imports(path)]
    assert len(arrows) > 100
    assert [arrow for arrow in arrows if room(arrow[0]) < room(arrow[1])] == []


def test_model_and_utils_import_nothing_of_the_project():
    assert [imports(ROOT / name) for name in ("model.py", "utils.py")] == [set(), set()]


def test_config_imports_only_the_standard_library():
    """So that --help answers at once."""
    tree = syntax(ROOT / "support" / "run" / "config.py")
    froms = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    modules = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    assert {*froms, *modules} <= {"argparse", "dataclasses", "json", "math", "os", "sys", "pathlib"}


def test_tests_import_no_other_test():
    for path in (ROOT / "tests").glob("*.py"):
        assert not re.search(r"^\s*(?:from|import) test_", read(path), re.MULTILINE), path.name
