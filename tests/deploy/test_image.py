"""The Dockerfile and its locked dependencies, as far as they can be judged without building an image."""

from __future__ import annotations

import fnmatch
import re
import tomllib

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.deploy.rendering import DEPLOY, KUSTOMIZE, container_of, pod_of, read
from tests.doubles.gateway import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
INSTRUCTIONS = [
    (line.split()[0], line.partition(" ")[2].strip())
    for line in re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", DOCKERFILE, flags=re.MULTILINE)).splitlines()
    if line.strip()
]
RUNTIME = INSTRUCTIONS[[name for name, _ in INSTRUCTIONS].index("FROM", 3) :]


def locked(name: str) -> dict[str, str]:
    """Package: version, of a locked list. Each has a checksum."""
    text = (DEPLOY / name).read_text()
    entry = r"^([\w.-]+)==([^\s;\\]+)[^\\\n]*((?: \\\n +--hash=sha256:[0-9a-f]{64})+)$"
    entries = re.findall(entry, text, re.MULTILINE)
    assert len(entries) == len(re.findall(r"^[\w.-]+", text, re.MULTILINE))
    return {canonicalize_name(package): version for package, version, _ in entries}


def unmet(wanted: list[str], locked: dict[str, str]) -> list[str]:
    """The requirements that no locked version meets; deploy/lock.sh mends that."""

    def is_met(one: Requirement) -> bool:
        version = locked.get(canonicalize_name(one.name))
        return version is not None and one.specifier.contains(version, prereleases=True)

    return [str(one) for one in map(Requirement, wanted) if not is_met(one)]


def test_dependencies_are_locked() -> None:
    assert unmet(PROJECT["project"]["dependencies"], locked("requirements.txt")) == []


def test_build_tools_are_locked() -> None:
    assert unmet(PROJECT["build-system"]["requires"], locked("requirements-build.txt")) == []


def test_an_unmet_requirement_is_told() -> None:
    assert unmet(["h11>=99", "absent", "pyyaml>=6"], locked("requirements.txt")) == ["h11>=99", "absent"]


def test_only_locked_packages_are_installed() -> None:
    installs = [part for _, text in INSTRUCTIONS for part in text.split("&&") if "pip" in part and "install" in part]
    assert len(installs) == 3
    assert all("--require-hashes" in install or "--no-deps /wheels/" in install for install in installs)


def test_runs_as_the_user_of_the_chart_and_without_a_shell() -> None:
    settings = dict(RUNTIME)
    context = pod_of(read(KUSTOMIZE / "base" / "deployment.yaml"))["securityContext"]
    assert settings["USER"] == f"{context['runAsUser']}:{context['runAsGroup']}"
    assert settings["ENTRYPOINT"] == '["/opt/pygw/bin/pygw"]'
    assert "RUN" not in settings
    assert "command" not in container_of(read(KUSTOMIZE / "base" / "deployment.yaml"))


def test_both_stages_have_one_python() -> None:
    bases = [text.split()[0] for name, text in INSTRUCTIONS if name == "FROM"]
    assert len(bases) == 2
    assert len(set(bases)) == 1


def test_context_holds_what_is_copied() -> None:
    """Dockerfile.dockerignore leaves out everything but what the image is built from."""
    ignore = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    kept = [line[1:] for line in ignore if line.startswith("!")]
    copies = [text for name, text in INSTRUCTIONS if name == "COPY" and not text.startswith("--")]
    copied = [path for text in copies for path in text.split()[:-1]]
    assert all(any(fnmatch.fnmatch(path, pattern) for pattern in kept) for path in copied)
    assert all((ROOT / path).exists() for path in copied)
