"""Users of the Python package, each in a process of its own that has it installed: jobs of `workers.py`.

A user's `registry` is a URL; where it is relative, it is so to the directory in which the job runs.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import feast_registry

import harness
from workers import behind_barrier

PROJECT = "rides"


def apply(path: str, *names: str) -> None:
    """Writes entities with Feast's client."""
    from feast import Entity, ValueType

    registry = harness.remote_registry(path, PROJECT)
    for name in names:
        registry.apply_entity(Entity(name=name, join_keys=[name], value_type=ValueType.INT64), PROJECT)


def names(path: str) -> set[str]:
    """The entities that are there."""
    return {entity.name for entity in harness.remote_registry(path, PROJECT).list_entities(PROJECT)}


def sdk(registry: str) -> None:
    """Feast's command line and SDK, from apply to the online store."""
    from feast import FeatureStore
    from feast.cli.cli import cli

    with feast_registry.serve(registry, linger=0) as path:
        repo = harness.make_repo(Path("repo").absolute(), SimpleNamespace(address=path), PROJECT)
        cli(args=["-c", str(repo), "apply"], standalone_mode=False)
        store = FeatureStore(repo_path=str(repo))
        assert "driver_stats" in {view.name for view in store.list_feature_views()}
        end = harness.DATA_START + harness.timedelta(hours=harness.DATA_HOURS)
        store.materialize(harness.DATA_START, end, feature_views=["driver_stats"])
        harness.assert_intervals(store.get_feature_view("driver_stats").to_proto(), [(harness.DATA_START, end)])
        rows = store.get_online_features(["driver_stats:trips"], [{"driver_id": driver} for driver in harness.DRIVERS])
        expected = [harness.driver_facts(driver, harness.DATA_HOURS - 1)[1] for driver in harness.DRIVERS]
        assert rows.to_dict()["trips"] == expected


def race(registry: str, count: str) -> None:
    """Asks for a server at the same moment as others do, and writes."""
    index = os.environ["INTEROP_INDEX"]
    written = [f"entity_{index}_{number}" for number in range(int(count))]

    def work() -> dict[str, Any]:
        with feast_registry.serve(registry, linger=0.5) as path:
            apply(path, *written)
        return {"written": written, "path": path}

    behind_barrier(work)


def parent(registry: str, count: str) -> None:
    """Gets a lease, forks children, gives it back and ends. They write when there is the file `go`, and wait for `end`."""
    server = feast_registry.serve(registry, linger=0.5)
    for number in range(int(count)):
        if os.fork() == 0:
            harness.wait_until(Path("go").exists, 60, "go")
            apply(server.path, f"child_{number}")
            Path(f"done-{number}").touch()
            harness.wait_until(Path("end").exists, 60, "end")
            return
    server.close()
    server.close()


def hold(registry: str) -> None:
    """Uses a server until it is killed."""
    config = feast_registry.remote(registry, linger=0.5)
    apply(config["path"], "held")
    Path("path").write_text(config["path"])
    time.sleep(600)


def survive(registry: str) -> None:
    """Has its server killed. Once somebody has asked for it again, its own client goes on too."""
    config = feast_registry.remote(registry, linger=0.5)
    client = harness.remote_registry(config["path"], PROJECT)
    apply(config["path"], "before")
    Path("path").write_text(config["path"])
    harness.wait_until(Path("again").exists, 60, "another server")
    assert feast_registry.remote(registry) == config
    # gRPC may have tried in vain meanwhile, and takes its time until it tries again.
    harness.wait_until(lambda: answers(client), 30, "the client's new connection")
    Path("done").touch()


def come_after(registry: str, path: str) -> None:
    """Comes when a server has been killed, and has another one at once."""
    assert Path(path).is_socket(), "what the server has left is to be there"
    with feast_registry.serve(registry, linger=0) as address:
        assert address == f"unix://{path}"
        assert names(address) == {"before"}
        Path("again").touch()
        harness.wait_until(Path("done").exists, 60, "the other client")


def answers(client: Any) -> bool:
    import grpc

    try:
        return bool(client.list_entities(PROJECT))
    except grpc.RpcError:
        return False


def come_and_go(registry: str, count: str) -> None:
    """Comes again and again at the moment when the server ends, as others do meanwhile."""
    index = os.environ["INTEROP_INDEX"]

    def work() -> dict[str, Any]:
        for number in range(int(count)):
            with feast_registry.serve(registry, linger=0) as path:
                apply(path, f"{index}_{number}")
            # From at once to a little after the server has ended.
            time.sleep(number % 10 / 500)
        return {}

    behind_barrier(work)


def fork_meanwhile(registry: str) -> None:
    """Forks while another thread gets servers; each child gets one of its own as well."""
    stop = threading.Event()

    def go_on() -> None:
        while not stop.is_set():
            feast_registry.serve(registry, linger=0).close()
            time.sleep(0.005)

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        for number in range(20):
            child = os.fork()
            if child == 0:
                with feast_registry.serve(registry, linger=0, timeout=20) as path:
                    os._exit(0 if path else 1)
            assert os.waitpid(child, 0)[1] == 0, f"child {number} got none"
    finally:
        stop.set()
        thread.join()


def separate() -> None:
    """A relative path is relative to the caller's directory, and what is served is as the file says."""
    paths = []
    for folder in (Path("one"), Path("two")):
        folder.mkdir()
        os.chdir(folder)
        with feast_registry.serve("sqlite:///registry.db", linger=0) as path:
            apply(path, folder.name)
            assert names(path) == {folder.name} and Path("registry.db").exists()
            paths.append(path)
        os.chdir("..")
    config = Path("feature_store.yaml")
    for folder in ("one", "two"):
        harness.write_registry_config(config, Path(folder, "registry.db").absolute())
        with feast_registry.serve(config=config, linger=0) as path:
            assert names(path) == {folder}
            paths.append(path)
        with feast_registry.serve(config=Path("."), linger=0) as path:
            assert names(path) == {folder}
    assert len(set(paths)) == len(paths)


def failures() -> None:
    """What cannot be served is told, with the server's own words."""
    for arguments, text in (
        ({"url": "gopher://registry"}, "gopher"),
        ({"config": "nowhere/feature_store.yaml"}, "nowhere/feature_store.yaml"),
        ({"config": "broken.yaml"}, "broken.yaml"),
    ):
        Path("broken.yaml").write_text("registry: [")
        message = refused(lambda: feast_registry.serve(**arguments))
        assert "ended before it was ready" in message and text in message.split("\n", 1)[1], message
    url = "sqlite:///registry.db"
    wrong = [{"linger": -1}, {"linger": float("nan")}, {"timeout": float("inf")}]
    for arguments in ({}, {"url": ""}, {"url": url, "config": "."}, *({"url": url, **times} for times in wrong)):
        try:
            feast_registry.serve(**arguments)
        except ValueError:
            continue
        raise AssertionError(f"{arguments} was taken")
    os.environ["FEAST_REGISTRY_BINARY"] = "/nowhere/feast-registry"
    assert "/nowhere/feast-registry" in refused(lambda: feast_registry.serve("sqlite:///registry.db"))


def refused(call: Callable[[], object]) -> str:
    try:
        call()
    except feast_registry.FeastRegistryError as error:
        return str(error)
    raise AssertionError("it was no failure")


def foreign_folder() -> None:
    """Where somebody else may have put a socket, nothing is looked for."""
    temporary = Path(os.environ["XDG_RUNTIME_DIR"])
    os.environ["XDG_RUNTIME_DIR"], tempfile.tempdir = "/nowhere", str(temporary)
    folder = temporary / f"feast-registry-{os.geteuid()}"
    elsewhere = temporary / "elsewhere"
    elsewhere.mkdir(mode=0o700)

    def assert_refused() -> None:
        assert str(folder) in refused(lambda: feast_registry.serve("sqlite:///registry.db"))
        assert not list(elsewhere.iterdir())

    folder.symlink_to(elsewhere)
    assert_refused()
    folder.unlink()
    folder.mkdir()
    folder.chmod(0o770)
    assert_refused()
    folder.chmod(0o700)
    feast_registry.serve("sqlite:///registry.db", linger=0).close()
    somebody, os.geteuid = os.geteuid() + 1, lambda: somebody
    folder = folder.rename(temporary / f"feast-registry-{somebody}")
    assert_refused()


def secret(registry: str, seconds: str) -> None:
    """Waits for a storage that does not answer."""
    message = refused(lambda: feast_registry.serve(registry, timeout=float(seconds)))
    assert "not ready in time" in message, message


JOBS: dict[str, Callable[..., None]] = {
    "sdk": sdk,
    "race": race,
    "parent": parent,
    "hold": hold,
    "survive": survive,
    "come-after": come_after,
    "come-and-go": come_and_go,
    "fork-meanwhile": fork_meanwhile,
    "separate": separate,
    "failures": failures,
    "foreign-folder": foreign_folder,
    "secret": secret,
}


def run(job: str, *arguments: str) -> None:
    assert Path(feast_registry.__file__).is_relative_to(sys.prefix), "this is not the installed package"
    JOBS[job](*arguments)
