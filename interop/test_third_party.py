"""Proves that a backend of another crate is served to Feast's SDK as ours are: examples/redb, with its own program.

The registry is named in a feature_store.yaml; what Feast writes is there after the server was killed under load.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from feast import Entity
from feast.errors import EntityNotFoundException

import harness
import kinds
from differential import ask
from loads import assert_kept, count

PROGRAM = "feast-registry-redb"
CLIENTS = 2
KILLS = 5
UNDER_LOAD_S = 0.3


@pytest.mark.parametrize("registry_type", ["sql", "file"])
def test_feasts_sdk(tmp_path: Path, project: str, registry_type: str) -> None:
    """What Feast's users do with an entity works through `registry_type: remote`, and every kind is applied."""
    url = f"redb://{tmp_path}/registry.redb"
    settings = {"registry_type": registry_type, "path": url}
    with harness.running(harness.start_ours(tmp_path / "unused.db", settings=settings, program=PROGRAM)) as server:
        assert f"serving {url}" in server.says("serving")
        registry = harness.remote_registry(server.port, project)
        registry.apply_entity(Entity(name="driver", join_keys=["driver_id"]), project)
        assert registry.get_entity("driver", project).join_key == "driver_id"
        assert [entity.name for entity in registry.list_entities(project)] == ["driver"]
        registry.delete_entity("driver", project)
        with pytest.raises(EntityNotFoundException):
            registry.get_entity("driver", project)
        for number, kind in enumerate(kinds.IN_PROJECT):
            ask(server, *kind.apply(kind.proto(f"thing_{number}"), project)).ok()
        assert server.stop() == 0
    assert not (tmp_path / "unused.db").exists()


def test_kills_lose_nothing(nursery: harness.Nursery, tmp_path: Path, project: str) -> None:
    url, port = f"redb://{tmp_path}/registry.redb", harness.free_port()

    def start() -> harness.Server:
        return harness.start_ours(tmp_path / "unused.db", registry=url, port=port, program=PROGRAM)

    server = start()
    try:
        ask(server, *kinds.FEATURE_VIEW.apply(kinds.FEATURE_VIEW.proto("view"), project)).ok()
        folder = tmp_path / "load"
        jobs = [["load", str(port), project, "view", str(client)] for client in range(CLIENTS)]
        workers = harness.Workers(nursery, folder, jobs).go()
        try:
            written = 0
            for number in range(KILLS):
                expected = written + 2 * CLIENTS
                harness.wait_until(lambda: count(folder) > expected, 30, f"writes before kill number {number + 1}")
                time.sleep(UNDER_LOAD_S)
                server.kill()
                server = start()
                written = assert_kept(server, project, folder)
            (folder / "stop").touch()
            workers.finish(60)
        except BaseException:
            workers.kill()
            raise
        assert assert_kept(server, project, folder) > KILLS * CLIENTS
        assert server.stop() == 0
    finally:
        server.kill()
