"""Proves that `feast-registry run -- feast …` works where the feature_store.yaml stays as it is: Feast's own command line, eight of it at
once, Feast's feature server with its workers, and a configuration that wants tokens."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import urllib.request
from pathlib import Path

import psutil
import pytest

import harness
from harness import hour_windows

PROJECT = "rides"
WORKERS = 8
VIEWS = ["driver_stats", "driver_fresh"]


SQL = "registry:\n  registry_type: sql  # Feast's own\n  path: sqlite:///registry.db\n"
FILE = "registry: data/registry.db\n"


def make_repo(tmp_path: Path, ours: harness.Server, registry: str) -> Path:
    """A repository with a registry of one of Feast's own kinds, and the feature_store.yaml as its users have it."""
    folder = harness.make_repo(tmp_path / "repo", ours, PROJECT)
    config = folder / "feature_store.yaml"
    head, rest = config.read_text().split("registry:\n", 1)
    config.write_text(head + registry + rest.split("\n", 2)[2])
    return folder


@pytest.fixture
def repo(tmp_path: Path, ours: harness.Server) -> Path:
    return make_repo(tmp_path, ours, SQL)


def environment(tmp_path: Path, **extra: str) -> dict[str, str]:
    """With a folder for sockets in which nothing may be left."""
    sockets = tmp_path / "sockets"
    sockets.mkdir(exist_ok=True)
    return harness.child_env(XDG_RUNTIME_DIR=str(sockets), **extra)


def run(repo: Path, *command: str, **extra: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [harness.registry_bin(), "run", "--", *command],
        cwd=repo,
        env=environment(repo.parent, **extra),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ok(process: subprocess.Popen[str]) -> str:
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out[-4000:]
    return out


def feast(repo: Path, *arguments: str, **extra: str) -> str:
    return ok(run(repo, harness.feast_executable(), *arguments, **extra))


def materialized(repo: Path, view: str) -> list[tuple[str, str]]:
    """As our own command reads it from the storage itself."""
    command = [harness.registry_bin(), "get", "feature-view", view, "-c", ".", "-o", "json"]
    told = subprocess.run(command, cwd=repo, env=environment(repo.parent), capture_output=True, check=True)
    intervals = json.loads(told.stdout)["meta"].get("materializationIntervals", [])
    return sorted((one["startTime"], one["endTime"]) for one in intervals)


def test_eight_materialize_at_once_and_a_feature_server_has_eight_workers(repo: Path) -> None:
    before = (repo / "feature_store.yaml").read_text()
    assert "Created feature view" in feast(repo, "apply")

    windows = hour_windows(WORKERS)
    commands = [
        ["materialize", start.isoformat(), end.isoformat(), "--views", view]
        for (start, end), view in zip(windows, VIEWS * WORKERS)
    ]
    started = [run(repo, harness.feast_executable(), *command) for command in commands]
    for process in started:
        ok(process)
    for number, view in enumerate(VIEWS):
        assert len(materialized(repo, view)) == len(windows[number :: len(VIEWS)]), view

    port = harness.free_port()
    serving = run(repo, harness.feast_executable(), "serve", "--port", str(port), "--workers", str(WORKERS))
    family: list[psutil.Process] = []
    try:
        question = {"features": ["driver_stats:trips"], "entities": {"driver_id": [1001]}}
        request = urllib.request.Request(
            f"http://{harness.HOST}:{port}/get-online-features",
            data=json.dumps(question).encode(),
            headers={"Content-Type": "application/json"},
        )

        def answers() -> bool:
            assert serving.poll() is None, serving.communicate()[0][-4000:]
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    return "PRESENT" in json.dumps(json.load(answer)["results"])
            except OSError:
                return False

        def has_workers() -> bool:
            family[:] = psutil.Process(serving.pid).children(recursive=True)
            return len(family) > WORKERS

        harness.wait_until(has_workers, 120, "the workers of the feature server")
        harness.wait_until(answers, 120, "the feature server")
        for _ in range(4 * WORKERS):
            assert answers()
        serving.send_signal(signal.SIGTERM)
        out, _ = serving.communicate(timeout=60)
        assert serving.returncode == 0, out[-4000:]
        _, alive = psutil.wait_procs(family, timeout=20)
        assert not alive, alive
    finally:
        if serving.poll() is None:
            for process in [*psutil.Process(serving.pid).children(recursive=True), serving]:
                process.kill()
            serving.communicate()
    assert (repo / "feature_store.yaml").read_text() == before
    assert not list((repo.parent / "sockets").iterdir())


def test_a_killed_one_is_in_nobodys_way(tmp_path: Path, ours: harness.Server) -> None:
    repo = make_repo(tmp_path, ours, FILE)
    process = run(repo, "sh", "-c", "echo at $$ $FEAST_REGISTRY_PATH; exec sleep 600")
    assert process.stdout
    # Before it, the log says that the registry is new.
    line = next(line for line in process.stdout if line.startswith("at "))
    _, pid, path = line.split()
    process.kill()
    process.wait(10)
    os.kill(int(pid), signal.SIGKILL)
    process.communicate()
    socket = Path(path.removeprefix("unix://"))
    assert socket.exists(), "nobody could remove it"
    # A younger one might be in the making.
    os.utime(socket.parent, (0, 0))
    assert "Created feature view" in feast(repo, "apply")
    assert not socket.exists()


def test_a_configuration_that_wants_tokens_needs_none_for_the_command(tmp_path: Path, ours: harness.Server) -> None:
    repo = make_repo(tmp_path, ours, FILE)
    config = repo / "feature_store.yaml"
    auth = (
        "auth:\n  type: oidc\n  auth_discovery_url: http://127.0.0.1:9/discovery\n  client_id: feast\n"
        "  client_secret: of nobody\n"
    )
    config.write_text(config.read_text() + auth)
    assert "Created feature view" in feast(repo, "apply")
    assert "driver_stats" in feast(repo, "feature-views", "list")
