"""The house rules of ARCHITECTURE.md, checked: linters, types, who may import whom, sizes, stubs."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 60

SOURCES = sorted(path for ending in ("py", "pyx", "pxd", "pyi") for path in (ROOT / "pygw").rglob(f"*.{ending}"))
CYTHON = [path for path in SOURCES if path.suffix in (".pyx", ".pxd")]
LEAVES = {f"pygw.{name}" for name in ("model", "settings", "errors", "field", "logs", "cpus", "printable")} | {"pygw"}


def name_of(path: Path) -> str:
    """The module that a source file is: pygw/http2/stream.pxd -> pygw.http2.stream."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path) for path in SOURCES}
# The matcher is _fastmatch, what it is made of, and two leaves of plain Python.
MATCHER = {name_of(path) for path in SOURCES if path.parent == ROOT / "pygw/match"}
MATCHER |= {"pygw._fastmatch", "pygw.regex", "pygw.local_address"}


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """Line number and module of every import and cimport in a .py, .pyx or .pxd file."""
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines, 1):
        found = re.match(r"\s*from\s+([\w.]+)\s+c?import\s+(.*)|\s*c?import\s+([\w.]+)", line)
        if not found:
            continue
        module, names, plain = found.groups()
        if module and module.startswith("."):
            module = absolute(module, path)
        # `from pygw.http2 cimport stream` imports the module pygw.http2.stream
        parts = re.findall(r"\w+", names) if module else []
        submodules = [f"{module}.{part}" for part in parts if f"{module}.{part}" in MODULES]
        for imported in submodules or [module or plain]:
            yield number, imported


def absolute(relative: str, path: Path) -> str:
    """The module that `..field` means in a file."""
    package = name_of(path).split(".")
    if path.stem != "__init__":
        package.pop()
    dots = len(relative) - len(relative.lstrip("."))
    return ".".join([*package[: len(package) - dots + 1], *relative.lstrip(".").split(".")]).rstrip(".")


def all_imports(*, of_pygw: bool = True) -> Iterator[tuple[str, str, str]]:
    """`file:line`, importing module, imported module."""
    for path in SOURCES:
        for number, imported in imports_of(path):
            if not of_pygw or imported.split(".")[0] == "pygw":
                yield f"{path.relative_to(ROOT)}:{number}", name_of(path), imported


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


# ===== who may import whom =====


def may_import(importer: str, imported: str) -> bool:
    """The import rules, one a line; `pygw` alone is its version, and where compiled modules are found."""
    if importer in ("pygw", "pygw.compiled"):
        return imported in ("pygw", "pygw.compiled", "pygw._compiled")
    if importer in LEAVES:
        return imported in ("pygw", "pygw.printable", importer)
    if within(importer, "pygw.http2"):
        return within(imported, "pygw.http2") or imported == "pygw.field"
    if importer in MATCHER:
        if imported == "pygw.model":  # what builds an image reads the configuration; what matches sees octets alone
            return importer == "pygw.match.image_builder"
        return imported in MATCHER or imported == "pygw.field"
    if within(importer, "pygw.demo"):
        return within(imported, "pygw.demo") or imported in LEAVES
    if within(imported, "pygw.demo"):
        return importer == "pygw.commands.demo"
    if within(imported, "pygw.commands"):
        return within(importer, "pygw.commands") or importer == "pygw.cli"
    if importer == "pygw.launcher":  # sockets, spawning, signals, and nothing that could crash it
        return not any(within(imported, package) for package in ("pygw.control", "pygw.proxy", "pygw.http2"))
    crossing = {"pygw.control": "pygw.proxy", "pygw.proxy": "pygw.control"}
    return not any(within(importer, one) and within(imported, other) for one, other in crossing.items())


def test_imports_follow_the_architecture() -> None:
    wrong = [
        f"{where}: {importer} must not import {imported}"
        for where, importer, imported in all_imports()
        if not may_import(importer, imported)
    ]
    assert not wrong, "\n".join(["see ARCHITECTURE.md, 'Who may import whom'", *wrong])


def test_only_the_demo_needs_grpcio() -> None:
    wrong = [
        where
        for where, importer, imported in all_imports(of_pygw=False)
        if imported.split(".")[0] in ("grpc", "grpc_health", "grpc_reflection", "google")
        and not within(importer, "pygw.demo")
    ]
    assert not wrong


def test_third_party_imports_are_dependencies() -> None:
    """What pygw imports is what `pip install pygw-grpc` brings; another package that is just there does not count."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {_normal(re.split(r"[<>=!~\[; ]", dependency)[0]) for dependency in project["dependencies"]}
    distributions = importlib.metadata.packages_distributions()
    known = {*sys.stdlib_module_names, "pygw", "cython", "libc", "cpython"}
    wrong = []
    for where, _, imported in all_imports(of_pygw=False):
        top = imported.split(".")[0]
        if top in known or imported == "google.protobuf":
            continue  # protobuf comes with grpcio-reflection, which is tied to its versions
        if not declared & {_normal(name) for name in distributions.get(top, [top])}:
            wrong.append(f"{where}: {imported}")
    assert not wrong


def _normal(distribution: str) -> str:
    """The name of a distribution as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def test_no_circular_cimport() -> None:
    edges: dict[str, set[str]] = {}
    for path in CYTHON:
        if path.suffix == ".pxd":
            edges.setdefault(name_of(path), set()).update(imported for _, imported in imports_of(path))
    done: set[str] = set()

    def visit(module: str, way: list[str]) -> None:
        assert module not in way, f"circular cimport: {' -> '.join([*way[way.index(module) :], module])}"
        if module not in done:
            for imported in sorted(edges.get(module, set()) - {module}):
                visit(imported, [*way, module])
            done.add(module)

    for module in sorted(edges):
        visit(module, [])


# ===== sizes and shape =====


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_files_stay_small(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= MAX_FILE_LINES, f"{lines} lines: split it by what it holds, see ARCHITECTURE.md"


def functions_of(path: Path) -> Iterator[tuple[int, str, int]]:
    """Line number, name and length of each function, docstring and comments included."""
    text = path.read_text()
    if path.suffix == ".py":
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node.lineno, node.name, (node.end_lineno or node.lineno) - node.lineno + 1
        return
    lines = text.splitlines()
    for index, line in enumerate(lines):
        found = re.match(r"( *)(?:cdef|cpdef|def|async def) (?!class ).*?(\w+)\(", line)
        if not found or line.rstrip().endswith(("except -1", "noexcept", "nogil")):
            continue
        indent = len(found[1])
        last = index
        for number, body in enumerate(lines[index + 1 :], index + 1):
            # a closing parenthesis of the signature is not the end of the function
            if body.strip() and len(body) - len(body.lstrip()) <= indent and not body.strip().startswith(")"):
                break
            last = number if body.strip() else last
        yield index + 1, found[2], last - index + 1


@pytest.mark.parametrize("path", [path for path in SOURCES if path.suffix != ".pyi"], ids=name_of)
def test_functions_stay_small(path: Path) -> None:
    long = [
        f"{path.name}:{line}: {name} has {length} lines"
        for line, name, length in functions_of(path)
        if length > MAX_FUNCTION_LINES
    ]
    assert not long, "\n".join(long)


@pytest.mark.parametrize("path", [path for path in SOURCES if path.suffix != ".pyi"], ids=name_of)
def test_files_say_what_they_are(path: Path) -> None:
    text = path.read_text().lstrip()
    if text:  # an empty __init__.pxd has nothing to say
        assert text.startswith(('"""', "#")), "the first lines say what the file is and what it does not know"


@pytest.mark.parametrize("path", CYTHON, ids=lambda path: str(path.relative_to(ROOT)))
def test_cython_modules_are_modules(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"^\s*include\s+[\"']", text, re.M), "cimport instead of include"
    assert not re.search(r"^\s*DEF\s", text, re.M), "a cdef enum or a const instead of DEF"


def test_no_pxi() -> None:
    assert not list((ROOT / "pygw").rglob("*.pxi"))


def test_cython_modules_that_python_imports_have_stubs() -> None:
    compiled = {name_of(path): path for path in CYTHON if path.suffix == ".pyx"}
    importers = [*(ROOT / "pygw").rglob("*.py"), *(ROOT / "tests").rglob("*.py"), *(ROOT / "bench").rglob("*.py")]
    imported = {module for path in importers for _, module in imports_of(path)}
    missing = sorted(name for name in compiled if name in imported and not compiled[name].with_suffix(".pyi").exists())
    assert not missing


# ===== linters =====


def lint(program: str, *arguments: str) -> None:
    """Run a linter of this virtual environment; skip, with the reason, where it is not installed."""
    folder = Path(sys.executable).parent
    if not shutil.which(program, path=str(folder)):
        pytest.skip(f"{program} is not installed; `make build` installs the dependency group dev")
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"  # cython-lint calls pycodestyle
    done = subprocess.run(
        [folder / program, *arguments], cwd=ROOT, env=os.environ | {"PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff() -> None:
    lint("ruff", "check", "pygw", "tests", "bench", "setup.py", "examples")


def test_mypy() -> None:
    lint("mypy")


def test_mypy_of_the_benchmark_suite() -> None:
    modules = [str(path) for path in sorted((ROOT / "bench").glob("*.py"))]
    lint("mypy", "--strict", "--explicit-package-bases", *modules)


def test_mypy_of_the_shared_doubles() -> None:
    typed = ("tests/doubles", "tests/end_to_end", "tests/fuzz", "tests/conftest.py")
    lint("mypy", "--strict", "--explicit-package-bases", *typed)


def test_cython_lint() -> None:
    lint("cython-lint", "--max-line-length", "120", "pygw")
