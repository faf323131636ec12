"""Proves that `feast-registry teardown` deletes what it showed, and nothing that was changed while it asked."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import harness
import kinds
from differential import ask


class Question:
    """A teardown at a terminal, which has asked and waits for its answer."""

    def __init__(self, url: str, *arguments: str) -> None:
        self.terminal, end = pty.openpty()
        command = [str(harness.registry_bin()), "teardown", "--registry", url, *arguments]
        self.process = subprocess.Popen(command, stdin=end, stdout=end, stderr=end)
        os.close(end)
        self.said = ""
        self.phrase = self._asks()

    def _asks(self) -> str:
        while not (asked := re.search(r"Type `(.*)` to go on: ", self.said)):
            assert self._reads(), self.said
        return asked[1]

    def _reads(self) -> bool:
        try:
            more = os.read(self.terminal, 4096)
        except OSError:  # It has ended.
            return False
        self.said += more.decode()
        return bool(more)

    def answer(self) -> tuple[int, str]:
        os.write(self.terminal, f"{self.phrase}\n".encode())
        deadline = time.monotonic() + 30
        while self._reads():
            assert time.monotonic() < deadline, self.said
        return self.process.wait(10), self.said

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.terminal)


class Teardowns:
    def __init__(self, path: Path) -> None:
        self.url = f"sqlite:///{path}"
        self.asked: list[Question] = []

    def ask(self, *arguments: str) -> Question:
        self.asked.append(Question(self.url, *arguments))
        return self.asked[-1]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(harness.registry_bin()), *arguments, "--registry", self.url]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


@pytest.fixture
def teardowns(own_server: harness.Server, tmp_path: Path) -> Iterator[Teardowns]:
    teardowns = Teardowns(tmp_path / "registry.db")
    for project in ["late", "early"]:
        apply_project(own_server, project)
    yield teardowns
    for question in teardowns.asked:
        question.close()


def apply_project(server: harness.Server, name: str, **tags: str) -> None:
    ask(server, *kinds.PROJECT.apply(kinds.PROJECT.proto(name, tags=tags), name)).ok()


def projects(server: harness.Server) -> set[str]:
    return {project.spec.name for project in ask(server, *kinds.PROJECT.list("")).ok().projects}


def test_a_project_that_was_protected_meanwhile_stays(teardowns: Teardowns, own_server: harness.Server) -> None:
    question = teardowns.ask("--project", "late")
    apply_project(own_server, "late", **{"feast.dev/protected-project": "true"})
    code, said = question.answer()
    assert code == 1 and "not deleted: `late`" in said and "was changed" in said, said
    # Lists for clients leave protected ones out.
    assert "late" in teardowns.run("list", "projects").stdout


def test_what_was_not_shown_is_not_deleted(teardowns: Teardowns, own_server: harness.Server) -> None:
    question = teardowns.ask("--project", "late")
    ask(own_server, *kinds.ENTITY.apply(kinds.ENTITY.proto("new"), "late")).ok()
    code, said = question.answer()
    assert code == 1 and "now 1 entity" in said and "Nothing was deleted" in said, said
    assert projects(own_server) == {"late", "early"}


def test_a_file_that_was_removed_meanwhile_is_not_made_again(teardowns: Teardowns, tmp_path: Path) -> None:
    question = teardowns.ask("--project", "late")
    for file in tmp_path.glob("registry.db*"):
        file.unlink()
    code, said = question.answer()
    assert code == 1 and "Nothing was deleted" in said, said
    assert not (tmp_path / "registry.db").exists()


def test_one_that_is_gone_already_keeps_no_other(teardowns: Teardowns, own_server: harness.Server) -> None:
    question = teardowns.ask("--all")
    ask(own_server, *kinds.PROJECT.delete("late", "late")).ok()
    code, said = question.answer()
    assert code == 0 and "Project `late` was gone already" in said and "Deleted project `early`" in said, said
    assert "the tables of the registry are removed" in said, said


def test_tables_that_went_meanwhile_are_not_made_again(teardowns: Teardowns) -> None:
    question = teardowns.ask("--project", "late")
    assert teardowns.run("teardown", "--all", "--yes").returncode == 0
    code, said = question.answer()
    assert code == 1, said
    assert "there is no registry" in teardowns.run("list", "projects").stderr


def test_what_is_said_of_the_tables_is_so(teardowns: Teardowns, own_server: harness.Server) -> None:
    question = teardowns.ask("--all")
    assert "and the registry's tables" in question.said, question.said
    apply_project(own_server, "new")
    code, said = question.answer()
    assert code == 0 and "Deleted project `early`" in said and "are removed" not in said, said
    assert projects(own_server) == {"new"}


def test_a_registry_that_is_only_read_is_not_asked_about(teardowns: Teardowns) -> None:
    teardowns.url += "?mode=ro"
    ended = teardowns.run("teardown", "--project", "late")
    assert ended.returncode == 1 and "read only. Nothing was deleted" in ended.stderr, ended.stderr
    assert "This deletes" not in ended.stderr, ended.stderr
