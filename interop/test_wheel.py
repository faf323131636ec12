"""Proves that the Python package is what it is said to be: a server where one is needed, shared, and gone with its last user.

The wheel (`FEAST_REGISTRY_TEST_WHEEL`, which `cargo xtask wheel` makes) is installed into a new environment, beside the packages that
these tests have. `wheel_users.py` has its users; they run in processes forked from one that has Feast imported already.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import site
import socket
import subprocess
import sys
import sysconfig
import tempfile
import urllib.request
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from email import message_from_bytes
from pathlib import Path

import psutil
import pytest

import harness
from harness import wait_until

URL = "sqlite:///registry.db"
# Of the servers here it is 0.5 s; a busy machine may take longer to notice.
GONE = 20


@pytest.fixture(scope="module")
def wheel() -> Path:
    return harness.wheel()


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the package."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin/python"
    options = ["--no-index", "--disable-pip-version-check", "--quiet"]
    subprocess.run([sys.executable, "-m", "pip", "--python", python, "install", *options, harness.wheel()], check=True)
    paths = sysconfig.get_paths(vars={"base": str(folder), "platbase": str(folder)})
    Path(paths["purelib"], "tests.pth").write_text("\n".join(site.getsitepackages()))
    return python


@pytest.fixture(scope="module")
def nursery(python: Path) -> Iterator[harness.Nursery]:
    nursery = harness.Nursery(python)
    yield nursery
    nursery.close()


@dataclass
class Runtime:
    """Where the servers of one test have their sockets, and the users of it."""

    folder: Path
    work: Path
    nursery: harness.Nursery

    def servers(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                command = process.cmdline()
                is_server = command and command[0].endswith("/feast-registry")
                if is_server and process.status() != psutil.STATUS_ZOMBIE and str(self.folder) in " ".join(command):
                    found.append(process)
        return found

    def server(self) -> psutil.Process:
        (server,) = self.servers()
        return server

    def wait_gone(self) -> None:
        wait_until(lambda: not self.servers(), GONE, "the end of the servers")

    def wait_gone_in_order(self) -> None:
        """So that no socket is left."""
        self.wait_gone()
        assert not list(self.folder.rglob("registry.sock"))

    def start(self, job: str, *arguments: str) -> int:
        return self.nursery.start(["wheel", job, *arguments], self.work / "log", self.work, **self.environment())

    def run(self, job: str, *arguments: str, timeout: float = 120) -> None:
        self.wait(self.start(job, *arguments), timeout)

    def wait(self, pid: int, timeout: float = 120) -> None:
        code = self.nursery.wait(pid, timeout)
        assert code == 0, f"exit code {code}:\n{(self.work / 'log').read_text(errors='replace')[-4000:]}"

    def together(self, count: int, job: str, *arguments: str) -> list[harness.Finished]:
        jobs = [["wheel", job, *arguments]] * count
        workers = harness.Workers(self.nursery, self.work / "race", jobs, cwd=self.work, **self.environment())
        return workers.go().finish()

    def path(self) -> Path:
        """The socket that the job has noted."""
        noted = self.work / "path"
        wait_until(lambda: noted.exists() and noted.read_text(), 60, "the server's path")
        return Path(noted.read_text().removeprefix("unix://"))

    def environment(self) -> dict[str, str]:
        return {"XDG_RUNTIME_DIR": str(self.folder)}

    def entities(self) -> set[str]:
        return {row["entity_name"] for row in harness.rows(self.work / "registry.db", "SELECT * FROM entities")}


@pytest.fixture
def runtime(nursery: harness.Nursery, tmp_path: Path) -> Iterator[Runtime]:
    """Nothing is left of its servers at the end. Its path is short, since there are bounds for sockets' paths."""
    folder = Path(tempfile.mkdtemp(prefix="feast-", dir="/tmp"))
    runtime = Runtime(folder, tmp_path, nursery)
    try:
        yield runtime
        runtime.wait_gone()
    finally:
        for server in runtime.servers():
            server.kill()
        shutil.rmtree(folder)


def test_what_is_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        files = {re.sub(r"^feast_registry-[^/]+\.", "", info.filename): info for info in archive.infolist()}
        module = {"__init__.py", "__main__.py", "py.typed"}
        assert {name for name in files if name.startswith("feast_registry/")} == {f"feast_registry/{n}" for n in module}
        assert files["data/scripts/feast-registry"].external_attr >> 16 & 0o111 == 0o111
        read = lambda name: archive.read(files[name])
        assert read("dist-info/licenses/LICENSE") == (harness.HERE.parent / "LICENSE").read_bytes()
        about = message_from_bytes(read("dist-info/METADATA"))
        tag = message_from_bytes(read("dist-info/WHEEL"))["Tag"]
    assert (about["Name"], about["License-Expression"], about["Requires-Python"]) == (
        "feast-registry",
        "Apache-2.0",
        ">=3.10",
    )
    assert about["Requires-Dist"] is None and about.get_payload().startswith("# feast-registry\n")
    assert tag.startswith("py3-none-") and wheel.name.endswith(f"-{tag}.whl")


def test_the_program_and_the_module_are_the_same(python: Path, wheel: Path) -> None:
    def output(*command: str | Path) -> str:
        return subprocess.run(command, check=True, capture_output=True, text=True, cwd="/").stdout

    version = output(python.with_name("feast-registry"), "--version")
    assert output(python, "-m", "feast_registry", "--version") == version
    assert version.startswith(f"feast-registry {wheel.name.split('-')[1]}")
    asked = output(python, "-c", "import feast_registry; print(feast_registry.binary())")
    assert Path(asked.strip()) == python.with_name("feast-registry")


def test_the_program_is_found_where_pip_puts_it_with_target(wheel: Path, python: Path, tmp_path: Path) -> None:
    options = ["--no-index", "--disable-pip-version-check", "--quiet", "--target", tmp_path]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, harness.wheel()], check=True)
    code = "import feast_registry; print(feast_registry.binary())"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    # Also where the environment has one of its own, which may be of another version.
    asked = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True, env=environment).stdout
    assert Path(asked.strip()) == tmp_path / "bin/feast-registry"


def test_feasts_sdk_applies_and_materializes(runtime: Runtime) -> None:
    runtime.run("sdk", URL)


def test_processes_that_come_at_the_same_moment_share_one_server(runtime: Runtime) -> None:
    finished = runtime.together(8, "race", URL, "20")
    harness.assert_overlap(finished)
    assert len({f.result["path"] for f in finished}) == 1
    runtime.server()
    runtime.wait_gone_in_order()
    assert runtime.entities() == {name for f in finished for name in f.result["written"]}


def test_forked_processes_have_the_lease_of_their_parent(runtime: Runtime) -> None:
    runtime.run("parent", URL, "4")
    server = runtime.server()
    with pytest.raises(psutil.TimeoutExpired):
        server.wait(1.5)
    (runtime.work / "go").touch()
    wait_until(lambda: all((runtime.work / f"done-{n}").exists() for n in range(4)), 60, "what the children write")
    assert runtime.servers() == [server]
    (runtime.work / "end").touch()
    runtime.wait_gone_in_order()
    assert runtime.entities() == {f"child_{n}" for n in range(4)}


def test_workers_of_gunicorn_share_one_server(runtime: Runtime, python: Path) -> None:
    port = harness.free_port()
    options = ["--preload", "--workers", "4", "--bind", f"{harness.HOST}:{port}"]
    environment = harness.child_env(**runtime.environment())
    with (runtime.work / "gunicorn.log").open("wb") as log:
        command = [python, "-m", "gunicorn", *options, "wheel_app:app"]
        master = subprocess.Popen(command, cwd=runtime.work, env=environment, stdout=log, stderr=log)
    seen: set[str] = set()

    def ask() -> bool:
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"http://{harness.HOST}:{port}", timeout=30) as answer,
        ):
            seen.update(answer.read().decode().split())
        assert master.poll() is None, (runtime.work / "gunicorn.log").read_text()
        return len(seen) == 4

    workers: list[psutil.Process] = []
    try:
        wait_until(ask, 60, "an answer of each worker")
        workers = psutil.Process(master.pid).children()
        # The server is not among them: gunicorn waits for any child.
        assert seen == {f"worker_{worker.pid}" for worker in workers}
        assert runtime.server() not in workers
    finally:
        for process in [psutil.Process(master.pid), *workers]:
            process.kill()
        master.wait()
    runtime.wait_gone_in_order()


def test_a_killed_server_is_replaced_at_the_same_path(runtime: Runtime) -> None:
    job = runtime.start("survive", URL)
    path = runtime.path()
    runtime.server().kill()
    wait_until(lambda: not runtime.servers(), 10, "the server's death")
    assert path.is_socket()
    runtime.run("come-after", URL, str(path))
    runtime.wait(job)


def test_the_server_of_a_killed_user_ends(runtime: Runtime) -> None:
    job = runtime.start("hold", URL)
    assert runtime.path().is_socket()
    server = runtime.server()
    with pytest.raises(psutil.TimeoutExpired):
        server.wait(1.5)
    os.kill(job, signal.SIGKILL)
    assert runtime.nursery.wait(job, 10) == -signal.SIGKILL
    runtime.wait_gone_in_order()


def test_who_comes_when_the_server_ends_gets_another(runtime: Runtime) -> None:
    runtime.together(3, "come-and-go", URL, "30")
    assert runtime.entities() == {f"{user}_{number}" for user in range(3) for number in range(30)}


def test_who_forks_while_a_server_is_started_does_no_harm(runtime: Runtime) -> None:
    runtime.run("fork-meanwhile", URL)


def test_directories_and_configurations_have_servers_of_their_own(runtime: Runtime) -> None:
    runtime.run("separate")


def test_what_cannot_be_served_is_told(runtime: Runtime) -> None:
    runtime.run("failures")


def test_a_directory_of_somebody_else_is_refused(runtime: Runtime) -> None:
    runtime.run("foreign-folder")


def test_a_socket_may_be_at_a_path_that_is_no_uri(runtime: Runtime) -> None:
    odd = runtime.folder / "a %41"
    odd.mkdir()
    job = Runtime(odd, runtime.work, runtime.nursery)
    job.run("sdk", URL)


def test_no_password_is_in_the_list_of_processes(runtime: Runtime) -> None:
    """While the server waits for a database that does not answer, which also ends when the time is over."""
    with socket.create_server((harness.HOST, 0)) as silent:
        url = f"postgresql://feast:s3cret-word@{harness.HOST}:{silent.getsockname()[1]}/feast"
        job = runtime.start("secret", url, "2")
        wait_until(runtime.servers, 30, "the server")
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                assert "s3cret" not in " ".join(process.cmdline())
        runtime.wait(job)
    assert not runtime.servers()
