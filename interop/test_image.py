"""Proves of the images in deploy/image what can be seen without an engine that builds images.

The script of the Dockerfile makes the root file system, out of the packages of this machine's Debian. The binary under test is put in,
and bubblewrap runs it as an engine would: as process 1, for a user that nobody has heard of, with a root that is read-only and a network
of its own. What is run, and with what around it, is read from the Dockerfiles.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import ssl
import stat
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest

import harness

TOP = harness.HERE.parent
IMAGE = TOP / "deploy" / "image"
# A user as OpenShift makes them up; the group is always this one.
USER, GROUP = "1234567", "0"
PORT = 6570
# What the image has beside the binary is to be little.
LARGEST_ROOT = 8_000_000


# --- what the Dockerfiles say --------------------------------------------------------------------


@dataclass
class Dockerfile:
    """The instructions of one, and of its last stage, which makes the image."""

    instructions: list[tuple[str, str]]

    @classmethod
    def read(cls, name: str) -> Dockerfile:
        lines = [line for line in (IMAGE / name).read_text().splitlines() if not line.startswith("#")]
        joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
        return cls([(word, rest) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line)])

    def all(self, instruction: str) -> list[str]:
        return [rest for word, rest in self.instructions if word == instruction]

    def last(self, instruction: str) -> str:
        """What the image has, whose stage is the last one."""
        last_from = max(i for i, (word, _) in enumerate(self.instructions) if word == "FROM")
        return Dockerfile(self.instructions[last_from:]).all(instruction)[-1]

    @property
    def path(self) -> str:
        return self.last("ENV").removeprefix("PATH=")


REGISTRY = Dockerfile.read("Dockerfile")
FEATURE_SERVER = Dockerfile.read("feature-server.Dockerfile")
ENTRYPOINT: list[str] = json.loads(REGISTRY.last("ENTRYPOINT"))
CMD: list[str] = json.loads(REGISTRY.last("CMD"))
HEALTH: list[str] = json.loads(REGISTRY.last("HEALTHCHECK").partition(" CMD ")[2])
DATA = REGISTRY.last("WORKDIR")


# --- an engine, of sorts -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bubblewrap(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The system's, else that of Debian's package, unpacked."""
    if found := shutil.which("bwrap"):
        return found
    folder = tmp_path_factory.mktemp("bubblewrap")
    for below in ("lists", "archives"):
        (folder / below / "partial").mkdir(parents=True)
    # As in rootfs.sh: only root may write in apt's own folders, and they may have no lists.
    apt = ["apt-get", "-qq", "-o", f"Dir::State::lists={folder}/lists", "-o", f"Dir::Cache={folder}"]
    apt += ["-o", "Debug::NoLocking=true", "-o", "APT::Sandbox::User=root"]
    for command in ([*apt, "update"], [*apt, "download", "bubblewrap"]):
        subprocess.run(command, cwd=folder, check=True)
    (package,) = folder.glob("bubblewrap_*.deb")
    subprocess.run(["dpkg", "-x", package, folder / "root"], check=True)
    return str(folder / "root/usr/bin/bwrap")


def make_root(root: Path, *runner: str) -> Path:
    """As the Dockerfile makes it, by its script; `runner` runs that as somebody else."""
    (script,) = [word for word in REGISTRY.all("COPY") if word.startswith("deploy/")]
    subprocess.run([*runner, TOP / script.split()[0], root], check=True, cwd=root.parent)
    return root


@pytest.fixture(scope="module")
def bare_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise harness.SetupProblem("the image is made out of Debian's packages, with Debian's tools (apt-get, dpkg)")
    return make_root(tmp_path_factory.mktemp("image") / "root")


@pytest.fixture(scope="module")
def root(bare_root: Path) -> Path:
    """With the binary, and with what an engine makes to mount on."""
    root = bare_root.with_name("with-binary")
    shutil.copytree(bare_root, root, symlinks=True)
    _, target = next(copy for copy in REGISTRY.all("COPY") if "--from=build" in copy).split()[-2:]
    shutil.copy(harness.registry_bin(), root / target.lstrip("/"))
    for folder in ("dev", "proc"):
        (root / folder).mkdir()
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n")
    return root


@dataclass
class Engine:
    bubblewrap: str
    root: Path

    def line(self, *command: str, data: Path | None = None, options: tuple[str, ...] = ()) -> list[str]:
        """A command line that runs a command in a container, and ends as the command does."""
        volume = ["--bind", str(data), DATA] if data else []
        return [
            self.bubblewrap,
            *("--unshare-all", "--as-pid-1", "--die-with-parent", "--cap-drop", "ALL"),
            *("--uid", USER, "--gid", GROUP),
            *("--clearenv", "--setenv", "PATH", REGISTRY.path, "--setenv", "HOME", "/"),
            *("--ro-bind", str(self.root), "/", "--tmpfs", "/tmp"),
            # A new /proc may not be mounted in a container of Docker's, where CI runs this.
            *("--dev-bind", "/dev", "/dev", "--ro-bind", "/proc", "/proc"),
            *volume,
            *("--chdir", DATA, *options, "--", *command),
        ]

    def run(self, *command: str, data: Path | None = None, options: tuple[str, ...] = ()) -> tuple[int, str]:
        """Runs a command that ends by itself: its exit code, and what it says."""
        line = self.line(*command, data=data, options=options)
        ran = subprocess.run(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
        assert "panicked" not in ran.stdout and "bwrap:" not in ran.stdout, ran.stdout
        return ran.returncode, ran.stdout

    @contextlib.contextmanager
    def start(self, *command: str, data: Path, log: Path) -> Iterator[Container]:
        reader, writer = os.pipe()
        line = self.line(*command, data=data, options=("--info-fd", str(writer)))
        with log.open("wb") as out:
            process = subprocess.Popen(line, stdout=out, stderr=out, pass_fds=[writer])
        os.close(writer)
        try:
            with open(reader) as information:
                says = information.read()
            assert says, f"bubblewrap does not start: {log.read_text()}"
            yield Container(process, json.loads(says)["child-pid"], log)
        finally:
            process.kill()
            process.wait()


@dataclass
class Container:
    process: subprocess.Popen[bytes]
    pid: int
    log: Path

    def enter(self, *namespaces: str) -> list[str]:
        """What runs a command in here: on the network alone, or in all of it."""
        return ["nsenter", "--target", str(self.pid), "--preserve-credentials", "--user", "--net", *namespaces]

    def exec(self, *command: str) -> tuple[int, str]:
        """As `docker exec`."""
        enter = self.enter("--mount", "--pid", "--ipc", "--uts", "--root", "--wd")
        ran = subprocess.run(
            [*enter, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60
        )
        return ran.returncode, ran.stdout

    def is_healthy(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return self.exec(*HEALTH)[0] == 0

    def from_outside(self, *command: str, cwd: Path) -> str:
        """What a program of this machine's says, on the container's network."""
        ran = subprocess.run(
            [*self.enter(), *command],
            cwd=cwd,
            env=harness.child_env(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=240,
        )
        assert ran.returncode == 0, f"{command}: {ran.stdout}\n{self.log.read_text()}"
        return ran.stdout

    def stop(self) -> int:
        os.kill(self.pid, signal.SIGTERM)
        return self.process.wait(30)


@pytest.fixture
def engine(root: Path, bubblewrap: str) -> Engine:
    return Engine(bubblewrap, root)


# --- the registry's image ------------------------------------------------------------------------


def test_serves_for_any_user_with_a_root_that_is_read_only(engine: Engine, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    with engine.start(*ENTRYPOINT, *CMD, data=data, log=tmp_path / "log") as container:
        harness.wait_until(container.is_healthy, 30, f"`{' '.join(HEALTH)}` to succeed")
        server = harness.Server("image", data / "registry.db", PORT, container.log, container.process)
        repo = harness.make_repo(tmp_path / "repo", server, "rides")
        container.from_outside(harness.feast_executable(), "apply", cwd=repo)
        assert "driver" in container.from_outside(harness.feast_executable(), "entities", "list", cwd=repo)
        for port in REGISTRY.last("EXPOSE").split():
            connect = "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv[1])), 10)"
            container.from_outside(sys.executable, "-c", connect, port, cwd=tmp_path)
        assert container.stop() == 0, container.log.read_text()
    assert not re.search(r"\bERROR\b|panicked", container.log.read_text()), container.log.read_text()
    assert {path.name.split("-")[0] for path in data.iterdir()} == {"registry.db"}
    harness.assert_sound(data / "registry.db")


def test_health_fails_where_nothing_serves(engine: Engine) -> None:
    code, says = engine.run(*HEALTH)
    assert code == 1 and str(PORT) in says, (code, says)


def test_without_a_volume_the_start_says_so(engine: Engine) -> None:
    """What nobody has given a place to write to does not start, and says what it lacks."""
    code, says = engine.run(*ENTRYPOINT, *CMD)
    assert code == 1, says
    assert "registry.db" in says and re.search("read-only", says, re.IGNORECASE), says


def test_outgoing_tls_has_certificates_to_trust(engine: Engine, root: Path) -> None:
    """Who asks a database for its certificate gets as far as the network; without the image's certificates, no further than that."""
    bundle = "/etc/ssl/certs/ca-certificates.crt"
    trusted = ssl.create_default_context(cafile=root / bundle.lstrip("/")).cert_store_stats()["x509_ca"]
    assert trusted > 100
    url = "postgresql://feast@127.0.0.1:5432/feast?sslmode=verify-full"
    connect = [*ENTRYPOINT, "list", "projects", "--registry", url]
    code, says = engine.run(*connect)
    assert code != 0 and "refused" in says and "certificates" not in says, says
    code, says = engine.run(*connect, options=("--ro-bind", "/dev/null", bundle))
    assert code != 0 and "no certificates to verify it against" in says, says


def test_feast_is_there_for_serve_registry_alone(engine: Engine) -> None:
    """Feast's Helm chart starts `feast serve_registry`; where there is no Feast, nothing else can be."""
    code, says = engine.run("feast", "serve_registry", "--help")
    assert code == 0, says
    code, says = engine.run("feast", "apply")
    assert code not in (0, 2) and "feast" in says, (code, says)


def test_the_root_has_nothing_that_a_server_does_not_need(bare_root: Path) -> None:
    files = [path for path in bare_root.rglob("*") if path.is_file() and not path.is_symlink()]
    size = sum(path.stat().st_size for path in files)
    print(f"the root file system without the binary: {size} bytes")
    assert size < LARGEST_ROOT
    # No shell, no tool: what can be run is the loader, and libraries that can.
    programs = {path.name.partition(".so")[0] for path in files if path.stat().st_mode & stat.S_IXUSR}
    assert all(name.startswith(("ld-linux", "libc")) for name in programs), programs
    below = [path.relative_to(bare_root) for path in bare_root.rglob("*")]
    assert {str(path) for path in below if len(path.parts) == 2} == {
        *("etc/group", "etc/nsswitch.conf", "etc/os-release", "etc/passwd", "etc/ssl"),
        *("usr/lib", "usr/lib64", "usr/local", "usr/share", "var/lib"),
    }


def test_who_may_write_where(bare_root: Path) -> None:
    user, group = REGISTRY.last("USER").split(":")
    (line,) = [line for line in (bare_root / "etc/passwd").read_text().splitlines() if f":{user}:{group}:" in line]
    assert line.split(":")[5] == DATA
    assert f":{group}:" in (bare_root / "etc/group").read_text()
    data = (bare_root / DATA.lstrip("/")).stat()
    # Root can give it away, others cannot.
    owner = (int(user), int(GROUP)) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    assert (stat.S_IMODE(data.st_mode), data.st_uid, data.st_gid) == (0o775, *owner)
    others = {
        str(path.relative_to(bare_root))
        for path in bare_root.rglob("*")
        if not path.is_symlink() and path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    }
    assert others == {"tmp", DATA.lstrip("/")}
    assert stat.S_IMODE((bare_root / "tmp").stat().st_mode) == 0o1777


def test_the_root_is_the_same_without_root(bare_root: Path) -> None:
    def listing(root: Path) -> dict[str, tuple[int, int]]:
        files = {str(path.relative_to(root)): path.lstat() for path in root.rglob("*")}
        return {name: (file.st_mode, stat.S_ISREG(file.st_mode) and file.st_size) for name, file in files.items()}

    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups") if os.geteuid() == 0 else ()
    # Not pytest's folder, which others may not enter.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        script = shutil.copy(IMAGE / "rootfs.sh", folder)
        subprocess.run([*nobody, script, f"{folder}/root"], check=True, cwd=folder)
        assert listing(Path(folder) / "root") == listing(bare_root)


# --- Feast's image with the registry in it -------------------------------------------------------


def test_only_serve_registry_is_not_feasts(root: Path, tmp_path: Path) -> None:
    """As in the image: the folder that the Dockerfile copies, before the one of Feast's image in PATH."""
    (copied,) = FEATURE_SERVER.all("COPY")
    source, target = copied.removeprefix("--from=registry ").split()
    shutil.copytree(root / source.lstrip("/"), tmp_path / target.strip("/"), symlinks=True)
    feasts = tmp_path / "opt/app-root/bin"
    feasts.mkdir(parents=True)
    (feasts / "feast").write_text('#!/bin/sh\necho "Feast itself: $*"\nexit 7\n')
    (feasts / "feast").chmod(0o755)
    path = FEATURE_SERVER.path.replace("/opt/", f"{tmp_path}/opt/").replace("$PATH", f"{feasts}:{os.environ['PATH']}")
    environment = harness.child_env(PATH=path)

    apply = ["feast", "--log-level", "DEBUG", "apply", "--skip-source-validation"]
    ran = subprocess.run(apply, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert (ran.returncode, ran.stdout.strip()) == (7, f"Feast itself: {' '.join(apply[1:])}"), ran.stderr

    port = harness.free_port()
    database = tmp_path / "registry.db"
    harness.write_registry_config(tmp_path / "feature_store.yaml", database)
    log = tmp_path / "server.log"
    serve = ["feast", "serve_registry", "--grpc", "-p", str(port)]
    with log.open("wb") as out:
        process = subprocess.Popen(serve, env=environment, cwd=tmp_path, stdout=out, stderr=out)
    with harness.running(harness.Server("feast", database, port, log, process)) as server:
        server.wait_serving()
        assert server.stop() == 0, server.log_tail()
    assert "Feast itself" not in log.read_text()


# --- what the Dockerfiles have from elsewhere ----------------------------------------------------


def test_the_versions_are_those_of_the_sources() -> None:
    package = tomllib.loads((TOP / "Cargo.toml").read_text())["workspace"]["package"]
    (rust,) = [image for image in REGISTRY.all("FROM") if "/rust:" in image]
    assert f"/rust:{package['rust-version']}." in rust
    defaults = dict(argument.split("=") for argument in FEATURE_SERVER.all("ARG"))
    assert defaults == {"FEAST_VERSION": version("feast"), "VERSION": package["version"]}
