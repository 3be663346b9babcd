"""What goes into the packages, by their description."""

from __future__ import annotations

import json
import subprocess
import tomllib
from fnmatch import fnmatch
from pathlib import Path

from metaportrait_cli.imports import NO_LIBRARY, cure

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_sources_are_named_and_not_whatever_lies_in_a_folder() -> None:
    patterns = PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    for pattern in patterns:
        assert "." in pattern.rsplit("/", 1)[1] or pattern in (
            "/LICENSE",
            "/Containerfile",
            "/docs/gallery/*",
        )
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    for name in listed.stdout.split():
        if name.split("/")[0] in {"metaportrait_cli", "weights", "samples", "docs", "licences"}:
            loose = [pattern.replace("**/", "*") for pattern in patterns]
            assert any(fnmatch(f"/{name}", pattern) for pattern in loose), name


def test_each_licence_of_a_file_is_in_the_expression_and_has_its_text() -> None:
    entries = json.loads((ROOT / "weights" / "manifest.json").read_text())
    found = set(_values(entries, "licence"))
    assert found
    texts = " ".join(path.name for path in (ROOT / "licences").iterdir())
    for licence in found:
        name = licence.title().replace(" ", "-") if " " in licence else licence
        assert name in PROJECT["project"]["license"]
        assert name in texts


def test_the_container_has_what_the_package_is_made_of_and_what_is_loaded() -> None:
    lines = (ROOT / "Containerfile").read_text().replace("\\\n", " ").splitlines()
    copied = {name for line in lines if line.startswith("COPY") for name in line.split()[1:-1]}
    assert all((ROOT / name).exists() for name in copied)
    project, wheel = PROJECT["project"], PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {"pyproject.toml", project["readme"], *wheel["packages"], *wheel["force-include"]}
    needed |= {pattern.split("/")[0] for pattern in project["license-files"]}
    assert needed == copied
    (installed,) = (line for line in lines if "apt-get install" in line)
    for library in ("libGL.so.1", "libglib-2.0.so.0"):
        told = cure(ImportError(f"{library}: {NO_LIBRARY}"))
        assert told.split("apt-get install ")[1].split(",")[0] in installed
    (extras,) = (line.split("[")[1].split("]")[0] for line in lines if "/source[" in line)
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    (entry,) = (json.loads(line.split(" ", 1)[1]) for line in lines if line.startswith("ENTRY"))
    assert entry[0] in project["scripts"]


def _values(node: object, key: str) -> list[str]:
    if isinstance(node, dict):
        own = [node[key]] if key in node else []
        return own + [v for child in node.values() for v in _values(child, key)]
    if isinstance(node, list):
        return [v for child in node for v in _values(child, key)]
    return []


def test_pages_link_to_files_that_are_there() -> None:
    for page in (ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")):
        text = page.read_text()
        for part in text.split("](")[1:]:
            target = part.split(")")[0].split("#")[0]
            if target and "://" not in target:
                assert (page.parent / target).exists(), (page.name, target)
