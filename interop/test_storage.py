"""Proves what a SQLite file needs of where it is: files, folders and file systems that are read-only, or full; and that what
is done to a file for good, and what is new or fleeting, is said.

Where a test runs as root, permissions only count without root's capabilities, and file systems are mounted where nobody else
sees them. If that cannot be done the tests are skipped, but not in CI.
"""

from __future__ import annotations

import os
import shlex
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

import harness
import kinds
from differential import Answer, ask

MODES = {"file": (0o444, 0o755), "folder": (0o644, 0o555), "both": (0o444, 0o555)}
"""Permissions of the file and of its folder."""


def possible(*prefix: str) -> list[str]:
    """A command before a command, which must be possible here."""
    try:
        ran = subprocess.run([*prefix, "true"], capture_output=True, text=True, timeout=20)
        problem = ran.stderr if ran.returncode else None
    except OSError as error:
        problem = str(error)
    if problem is not None:
        text = f"`{shlex.join(prefix)}` cannot be run here: {problem}"
        pytest.fail(text) if os.environ.get("CI") == "true" else pytest.skip(text)
    return list(prefix)


def without_privileges() -> list[str]:
    return possible("setpriv", "--bounding-set=-all", "--inh-caps=-all") if os.geteuid() == 0 else []


def with_mount(folder: Path, mount: str) -> list[str]:
    """A process that sees something else at the folder."""
    as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    script = f'set -e; folder="$1"; shift; {mount}; exec "$@"'
    return possible("unshare", "--mount", *as_root, "sh", "-c", script, "sh", str(folder))


READ_ONLY_MOUNT = 'mount --bind "$folder" "$folder"; mount -o remount,ro,bind "$folder"'


def start(prefix: list[str], registry: str, logs: Path) -> harness.Server:
    port = harness.free_port()
    command = [str(harness.registry_bin()), "serve", "--host", harness.HOST, "--port", str(port)]
    command += ["--registry", registry]
    return harness._spawn("ours", [*prefix, *command], logs, None, port, wait=True)


def warnings(server: harness.Server) -> list[str]:
    # What it warns of at start comes before that line.
    return [line for line in server.says("serving ").splitlines() if "WARN" in line]


def apply(server: harness.Server, name: str) -> Answer:
    return ask(server, *kinds.ENTITY.apply(kinds.ENTITY.proto(name), "rides"))


def names(server: harness.Server) -> list[str]:
    rpc, request = kinds.ENTITY.list("rides")
    request.allow_cache = False
    return sorted(entity.spec.name for entity in ask(server, rpc, request).ok().entities)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "registry"
    folder.mkdir()
    yield folder
    folder.chmod(0o755)


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    logs = tmp_path / "logs"
    logs.mkdir()
    return logs


def make(folder: Path, logs: Path, options: str = "") -> Path:
    """A registry with one entity in it."""
    file = folder / "registry.db"
    with harness.running(start([], f"sqlite:///{file}{options}", logs)) as server:
        apply(server, "e").ok()
        assert server.stop() == 0
    return file


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("journal", ["wal", "keep"])
@pytest.mark.parametrize("way", [*MODES, "mount"])
def test_a_registry_that_cannot_be_written_is_read(way: str, journal: str, folder: Path, logs: Path) -> None:
    """Reads are answered, writes say why they are not done, and nothing is left beside the file."""
    file = make(folder, logs, f"?journal_mode={journal}")
    if way == "mount":
        prefix = with_mount(folder, READ_ONLY_MOUNT)
    else:
        prefix = without_privileges()
        file.chmod(MODES[way][0])
        folder.chmod(MODES[way][1])
    before = files(folder)
    with harness.running(start(prefix, f"sqlite:///{file}", logs)) as server:
        (told,) = warnings(server)
        assert "can be read only" in told and "cannot be written" in told and str(folder) in told
        assert names(server) == ["e"]
        ask(server, *kinds.ENTITY.get("e", "rides")).ok()
        refused = apply(server, "f")
        assert refused.code is grpc.StatusCode.FAILED_PRECONDITION, refused
        assert "nothing was written" in refused.detail and str(folder) in refused.detail
        server.says("a request failed, since the storage did")
        assert names(server) == ["e"]
    for command in (["list", "entities", "--project", "rides"], ["get", "entity", "e", "--project", "rides"]):
        command = [*prefix, str(harness.registry_bin()), *command, "--registry", f"sqlite:///{file}"]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=20)
        assert ran.returncode == 0 and "e" in ran.stdout, ran
    assert files(folder) == before


def test_a_read_only_server_follows_the_writers_of_another_mount(folder: Path, logs: Path) -> None:
    """As where a volume is mounted for reading in one place and for writing in another."""
    file = make(folder, logs)
    url = f"sqlite:///{file}"
    with harness.running(start(with_mount(folder, READ_ONLY_MOUNT), url, logs)) as reader:
        known = ["e"]
        for number in range(3):
            with harness.running(start([], url, logs)) as writer:
                assert not warnings(writer)
                for name in (f"a{number}", f"b{number}"):
                    apply(writer, name).ok()
                    known.append(name)
                    assert names(reader) == sorted(known), "what is in the WAL"
                assert writer.stop() == 0
            assert not (folder / "registry.db-wal").exists()
            assert names(reader) == sorted(known), "what is in the file"
        # Whoever takes its place is read as it is.
        (folder / "other").mkdir()
        other = make(folder / "other", logs)
        other.rename(file)
        assert names(reader) == ["e"]


@pytest.mark.parametrize("way", ["mount", "link"])
def test_a_file_whose_writers_are_elsewhere_is_not_read(way: str, folder: Path, logs: Path) -> None:
    """What they commit is beside the file where they have it: what is read here would be old, and after a while damaged."""
    file = make(folder, logs)
    view = folder / "view" / "registry.db"
    view.parent.mkdir()
    if way == "mount":
        view.touch()
        mount = f'mount --bind {shlex.quote(str(file))} "$folder"; mount -o remount,ro,bind "$folder"'
        prefix = with_mount(view, mount)
    else:
        view.hardlink_to(file)
        view.parent.chmod(0o555)
        prefix = without_privileges()
    command = [*prefix, str(harness.registry_bin()), "serve", "--port", "0", "--wait-for-storage", "60"]
    ran = subprocess.run([*command, "--registry", f"sqlite:///{view}"], capture_output=True, text=True, timeout=20)
    view.parent.chmod(0o755)
    assert ran.returncode > 0, ran.stderr
    said = {"mount": "mounted by itself", "link": "more than one name"}[way]
    assert said in ran.stderr and str(view) in ran.stderr and "serve it where it can be written" in ran.stderr, (
        ran.stderr
    )
    assert "does not answer" not in ran.stderr


@pytest.mark.parametrize("what", ["new", "unreadable"])
def test_what_cannot_be_made_or_read_is_not_waited_for(what: str, folder: Path, logs: Path) -> None:
    file = folder / "new.db" if what == "new" else make(folder, logs)
    if what == "unreadable":
        file.chmod(0o000)
    folder.chmod(0o555)
    command = [*without_privileges(), str(harness.registry_bin()), "serve", "--port", "0", "--wait-for-storage", "60"]
    ran = subprocess.run([*command, "--registry", f"sqlite:///{file}"], capture_output=True, text=True, timeout=20)
    assert ran.returncode > 0 and str(file) in ran.stderr and "access" in ran.stderr, ran.stderr
    assert "does not answer" not in ran.stderr


def test_a_wal_that_cannot_be_read_is_no_reason_to_answer_without_it(folder: Path, logs: Path) -> None:
    file = make(folder, logs)
    with harness.running(start([], f"sqlite:///{file}", logs)) as server:
        apply(server, "f").ok()
        server.kill()
    (folder / "registry.db-shm").unlink()
    command = [*with_mount(folder, READ_ONLY_MOUNT), str(harness.registry_bin()), "serve", "--port", "0"]
    ran = subprocess.run([*command, "--registry", f"sqlite:///{file}"], capture_output=True, text=True, timeout=20)
    assert ran.returncode > 0 and "registry.db-shm" in ran.stderr and "wal_checkpoint" in ran.stderr, ran.stderr


def test_a_journal_mode_that_is_changed_for_good_is_told_once(folder: Path, logs: Path) -> None:
    file = make(folder, logs, "?journal_mode=keep")
    mode = lambda: sqlite3.connect(file).execute("PRAGMA journal_mode").fetchone()[0]  # noqa: E731
    assert mode() == "delete"
    with harness.running(start([], f"sqlite:///{file}?journal_mode=keep", logs)) as server:
        apply(server, "f").ok()
        assert not warnings(server)
    assert mode() == "delete"
    with harness.running(start([], f"sqlite:///{file}", logs)) as server:
        for name in ("g", "h"):
            apply(server, name).ok()
        (told,) = warnings(server)
        for part in ("`delete`", "WAL", "`-wal`", ".backup", "folder", "journal_mode=keep"):
            assert part in told, told
    assert mode() == "wal"
    with harness.running(start([], f"sqlite:///{file}", logs)) as server:
        apply(server, "i").ok()
        assert not warnings(server)


@pytest.mark.parametrize("kib", [40, 400])
@pytest.mark.parametrize("journal", ["wal", "keep"])
def test_a_full_file_system_is_said_to_be_full(journal: str, kib: int, folder: Path, logs: Path) -> None:
    """The `-shm` does not fit into it, the WAL, or the database."""
    prefix = with_mount(folder, f'mount -t tmpfs -o size={kib}k none "$folder"')
    url = f"sqlite:///{folder}/registry.db?journal_mode={journal}"
    if kib < 100:
        command = [*prefix, str(harness.registry_bin()), "serve", "--port", "0", "--registry", url]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=20)
        assert ran.returncode > 0
        said = ran.stderr
    else:
        with harness.running(start(prefix, url, logs)) as server:
            answers = (apply(server, f"{number}" + "x" * 200) for number in range(2000))
            refused = next(answer for answer in answers if answer.code is not None)
            assert refused.code is grpc.StatusCode.UNAVAILABLE, refused
            server.says("a request failed, since the storage did")
            said = refused.detail
            assert len(names(server)) > 0
    for part in ("full", "make room", f"{folder}/registry.db"):
        assert part in said, said


def test_a_limit_of_the_size_of_files_is_told(folder: Path, logs: Path) -> None:
    """As a quota is: SQLite says the same of both."""
    file = folder / "registry.db"
    for kib in (8, 40):
        limited = ["sh", "-c", f'ulimit -f {kib * 2}; exec "$@"', "sh", str(harness.registry_bin())]
        command = [*limited, "serve", "--port", "0", "--registry", f"sqlite:///{file}"]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=20)
        assert ran.returncode > 0 and "quota" in ran.stderr and "ulimit -f" in ran.stderr, ran.stderr


@pytest.mark.parametrize("url", ["sqlite:///{}/new.db", "file://{}/new.pb"])
def test_a_new_registry_is_told_once(url: str, folder: Path, logs: Path) -> None:
    url = url.format(folder)
    with harness.running(start([], url, logs)) as server:
        (told,) = warnings(server)
        assert "new registry" in told and f"{folder}/new." in told
        apply(server, "e").ok()
    with harness.running(start([], url, logs)) as server:
        assert names(server) == ["e"] and not warnings(server)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "memory://"])
def test_a_registry_in_memory_is_said_to_be_lost_at_the_end(url: str, logs: Path) -> None:
    with harness.running(start([], url, logs)) as server:
        (told,) = warnings(server)
        assert "in memory" in told and "lost" in told
