"""Proves that the quick start of the README works, as it is written there, in a new environment: with the wheel in place of the package index,
and with the Feast that these tests have."""

from __future__ import annotations

import os
import re
import site
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import harness

README = harness.HERE.parent / "README.md"


def section(title: str) -> str:
    found = re.search(rf"^##+ {re.escape(title)}\n(.*?)(?=^##)", README.read_text(), re.MULTILINE | re.DOTALL)
    assert found, f"README.md has no section {title!r}"
    return found[1]


def blocks(title: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", section(title), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of somebody who has made a virtual environment and activated it."""
    folder = tmp_path_factory.mktemp("user")
    venv = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    paths = sysconfig.get_paths(vars={"base": str(venv), "platbase": str(venv)})
    # Feast is large: it is taken from here.
    Path(paths["purelib"], "tests.pth").write_text("\n".join(site.getsitepackages()))
    environment = harness.child_env(
        PATH=os.pathsep.join([str(venv / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]),
        PIP_NO_INDEX="1",
        PIP_FIND_LINKS=str(harness.wheel().parent),
        PIP_DISABLE_PIP_VERSION_CHECK="1",
        VIRTUAL_ENV=str(venv),
        TMPDIR=str(folder),
        HOME=str(folder),
    )
    return {**environment, "FOLDER": str(folder)}


def run(script: str, shell: dict[str, str], folder: Path) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=folder, env=shell, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_quick_start_works_word_by_word(shell: dict[str, str]) -> None:
    folder = Path(shell["FOLDER"])
    install, apply = blocks("Quick start", "sh")
    assert "pip install feast-registry" in install and apply.rstrip().endswith("feast apply")
    run(install, shell, folder)
    assert (folder / "venv/bin/feast-registry").exists()
    said = run(apply, shell, folder)
    assert "driver_hourly_stats" in said, said
    repo = folder / "rides/feature_repo"
    # It is in Feast's own registry, where the configuration says.
    listed = run("feast feature-views list", shell, repo)
    assert "driver_hourly_stats" in listed, listed
    assert "works" in run("feast-registry self-test", shell, folder)

    (program,) = blocks("In a Python program", "python")
    check = "\nprint([project.name for project in store.list_projects()])\n"
    (repo / "program.py").write_text(program + check)
    assert run("python program.py", shell, repo).splitlines()[-1] == "['rides']"
