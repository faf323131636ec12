"""Feast's side of the benchmark.

    feast_side.py seed FILE:VIEWS...    fill registries, each with so many feature views, through Feast's SqlRegistry
    feast_side.py serve FOLDER PORT     Feast's own registry server over the feature_store.yaml in FOLDER
    feast_side.py file-applies FILE WRITERS SECONDS
                                        apply entities to a registry file, so many threads at once; prints how many were
                                        acknowledged, how many of them are in the file, and the seconds that it took
    feast_side.py versions              what it runs on
"""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

PROJECT = "rides"
ENTITIES = 10
FEATURES = 20
VIEWS_PER_SERVICE = 10


def entity(number: int):
    from feast import Entity, ValueType

    name = f"entity_{number:02}"
    return Entity(
        name=name,
        join_keys=[f"{name}_id"],
        value_type=ValueType.INT64,
        description="Something that features are about, by the number that its system of record gave it",
        tags={"team": f"team-{number % 5}"},
        owner=f"team-{number % 5}@example.com",
    )


def view(number: int, about):
    from feast import FeatureView, Field, FileSource
    from feast.types import Float32, Float64, Int64, String

    types = [Float32, Int64, Float64, String]
    name = f"driver_statistics_{number:04}"
    team = f"team-{number % 5}"
    fields = [
        Field(
            name=f"{name}_feature_{feature:02}",
            dtype=types[feature % len(types)],
            description=f"Statistic {feature} of the last hour, by the fleet system",
            tags={"unit": "ratio"} if feature % 4 == 0 else {},
        )
        for feature in range(FEATURES)
    ]
    return FeatureView(
        name=name,
        entities=[about],
        ttl=timedelta(days=7),
        schema=[Field(name=about.join_key, dtype=Int64), *fields],
        source=FileSource(
            name=f"{name}_source",
            path=f"s3://features/{team}/{name}.parquet",
            timestamp_field="event_timestamp",
            created_timestamp_column="created",
            description="Hourly statistics of drivers",
            tags={"team": team},
            owner=f"{team}@example.com",
        ),
        tags={"team": team, "tier": str(number % 3), "domain": "rides", "stage": "production"},
        description=f"What the fleet system knows of a driver, part {number}",
        owner=f"{team}@example.com",
    )


def seed(file: Path, views: int) -> None:
    """A project with so many feature views, a source for each, entities, and a feature service for every ten views."""
    from feast import FeatureService
    from feast.infra.registry.sql import SqlRegistry, SqlRegistryConfig
    from sqlalchemy import Engine, event

    @event.listens_for(Engine, "connect")
    def do_not_sync(connection, _record):
        # Nothing is measured yet. Neither setting stays in the file.
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA journal_mode = MEMORY")

    # In the mode `sync`, Feast reads the whole registry anew after each write.
    config = SqlRegistryConfig(
        registry_type="sql", path=f"sqlite:///{file}", cache_mode="thread", cache_ttl_seconds=3600
    )
    registry = SqlRegistry(config, project=PROJECT, repo_path=None)
    entities = [entity(number) for number in range(ENTITIES)]
    for each in entities:
        registry.apply_entity(each, PROJECT)
    made = [view(number, entities[number % ENTITIES]) for number in range(views)]
    for each in made:
        registry.apply_data_source(each.batch_source, PROJECT)
        registry.apply_feature_view(each, PROJECT)
    for first in range(0, views, VIEWS_PER_SERVICE):
        # A model reads some of a view's features.
        some = [each[[each.features[0].name, each.features[1].name]] for each in made[first : first + VIEWS_PER_SERVICE]]
        service = FeatureService(name=f"model_{first // VIEWS_PER_SERVICE:03}", features=some)
        registry.apply_feature_service(service, PROJECT)


def serve(folder: str, port: str) -> None:
    """What `feast --chdir FOLDER serve_registry --port PORT` does, whatever is in PATH."""
    from feast.cli.cli import cli

    cli(["--chdir", folder, "serve_registry", "--port", port])


def file_applies(file: Path, writers: int, seconds: float) -> None:
    """Feast's Registry on one file, as its registry server has it: one object for all threads."""
    from threading import Thread
    from time import monotonic

    from feast.infra.registry.registry import Registry
    from feast.repo_config import RegistryConfig

    def registry() -> Registry:
        config = RegistryConfig(registry_type="file", path=str(file), cache_ttl_seconds=600)
        return Registry(PROJECT, config, repo_path=file.parent)

    shared, acknowledged = registry(), set()
    began = monotonic()

    def write(writer: int) -> None:
        number = 0
        while monotonic() < began + seconds:
            each = entity(0)
            each.name = f"written_{writer}_{number}"
            number += 1
            try:
                shared.apply_entity(each, PROJECT)
            except Exception:
                continue
            acknowledged.add(each.name)

    threads = [Thread(target=write, args=[writer]) for writer in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = monotonic() - began
    try:
        kept = acknowledged & {each.name for each in registry().list_entities(PROJECT)}
    except Exception:
        kept = set()
    print(len(acknowledged), len(kept), took)


def versions() -> None:
    from importlib.metadata import version
    from platform import python_version
    from sqlite3 import sqlite_version

    print(f"feast {version('feast')} on Python {python_version()}, grpcio {version('grpcio')}, SQLite {sqlite_version}")


def main(command: str, *args: str) -> None:
    if command == "seed":
        for target in args:
            file, _, views = target.rpartition(":")
            seed(Path(file), int(views))
    elif command == "serve":
        serve(*args)
    elif command == "file-applies":
        file, writers, seconds = args
        file_applies(Path(file), int(writers), float(seconds))
    elif command == "versions":
        versions()
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    main(*sys.argv[1:])
