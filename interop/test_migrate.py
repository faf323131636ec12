"""`feast-registry migrate`: tables that an old Feast made in MySQL, brought up to date under a server that runs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import grpc
import pytest

import databases
import harness
import kinds
from differential import ask

LARGE = {"description": "x" * 70_000}


def migrate(url: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [str(harness.registry_bin()), "migrate", "--registry", url, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("service", ["mariadb", "mysql"])
def test_old_tables_hold_all_after_migrating(service: str, project: str, tmp_path: Path) -> None:
    with databases.own_database(service, tmp_path) as database:
        feast = harness.sql_registry(database, project)
        feast.apply_entity(kinds.entity("driver"), project)
        # As Feast made it before it took to LONGBLOB.
        database.run("ALTER TABLE entities MODIFY entity_proto BLOB NOT NULL")
        with harness.running(harness.start_ours(database)) as server:
            large = kinds.ENTITY.apply(kinds.ENTITY.proto("large", **LARGE), project)
            lookalike = kinds.ENTITY.apply(kinds.ENTITY.proto("Driver"), project)
            for refused, reason in ((ask(server, *large), "entity_proto"), (ask(server, *lookalike), "driver")):
                assert refused.code == grpc.StatusCode.INVALID_ARGUMENT, refused
                assert reason in refused.detail and "feast-registry migrate" in refused.detail, refused.detail

            plan = migrate(database.url, "--dry-run")
            assert plan.returncode == 0 and "entities" in plan.stdout, plan
            assert ask(server, *large).code == grpc.StatusCode.INVALID_ARGUMENT, "a dry run changes nothing"
            done = migrate(database.url)
            assert done.returncode == 0 and "entities" in done.stdout, done
            again = migrate(database.url)
            assert again.returncode == 0 and not again.stdout and "nothing to migrate" in again.stderr, again

            assert ask(server, *large).code is None and ask(server, *lookalike).code is None
        names = {entity.name for entity in harness.sql_registry(database, project).list_entities(project)}
        assert names == {"driver", "Driver", "large"}, "Feast reads what is there, old and new"


def test_other_storages_have_nothing_to_migrate(tmp_path: Path) -> None:
    missing = migrate(f"sqlite:///{tmp_path / 'registry.db'}")
    assert missing.returncode == 1 and "there is no registry" in missing.stderr, missing
    assert list(tmp_path.iterdir()) == [], "nothing is made"
    with harness.running(harness.start_ours(tmp_path / "registry.db")):
        done = migrate(f"sqlite:///{tmp_path / 'registry.db'}")
    assert done.returncode == 0 and "nothing to migrate" in done.stderr, done
