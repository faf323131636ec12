"""Two servers of Feast's web UI over the same objects: Feast's own, as `feast ui` runs it, and ours."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import harness
import kinds

PROJECT, SECOND = "rides", "food_delivery"


def definitions() -> ModuleType:
    """The feature repository of the tests, as a module."""
    spec = importlib.util.spec_from_file_location("ui_definitions", harness.HERE / "repo" / "definitions.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def fill(db: Path) -> None:
    """Stores the repository's objects in a SQLite file, with Feast's own registry: some of each kind, in two projects."""
    from feast import Entity, FeatureService
    from feast.base_feature_view import BaseFeatureView
    from feast.data_source import DataSource
    from feast.permissions.permission import Permission
    from feast.project import Project

    registry = harness.sql_registry(db, PROJECT)
    registry.apply_project(Project(name=PROJECT, description="Everything that moves"))
    registry.apply_project(Project(name=SECOND))
    registry.apply_entity(kinds.entity("courier"), SECOND)
    applies: list[tuple[type, Any]] = [
        (Entity, registry.apply_entity),
        (DataSource, registry.apply_data_source),
        (BaseFeatureView, registry.apply_feature_view),
        (FeatureService, registry.apply_feature_service),
        (Permission, registry.apply_permission),
    ]
    module = definitions()
    for kind, apply in applies:
        for each in vars(module).values():
            if isinstance(each, kind):
                apply(each, PROJECT)
    dataset = kinds.saved_dataset("july", feature_service_name="pricing", tags={"season": "summer"})
    registry.apply_saved_dataset(dataset, PROJECT)
    for window in harness.hour_windows(2):
        registry.apply_materialization(module.driver_stats, PROJECT, *window)
    registry.write_engine.dispose()


@dataclass
class Ui:
    """A server that has the UI at `port`, over the file `db`."""

    server: harness.Server
    port: int
    db: Path

    @property
    def name(self) -> str:
        return self.server.name

    def origin(self) -> str:
        """Where its pages are, once they are."""

        def answers() -> bool:
            self.server.assert_alive()
            try:
                with urllib.request.urlopen(f"http://{harness.HOST}:{self.port}/", timeout=10) as answer:
                    return answer.status == 200
            except urllib.error.URLError:
                return False

        harness.wait_until(answers, 90, f"a page of {self.name}")
        return f"http://{harness.HOST}:{self.port}"


def get(ui: Ui, path: str) -> Any:
    """What is answered, which is JSON."""
    with urllib.request.urlopen(ui.origin() + path, timeout=30) as answer:
        return json.load(answer)


@contextlib.contextmanager
def running(ui: Ui) -> Iterator[Ui]:
    with harness.running(ui.server):
        yield ui


def start_feast(db: Path) -> Ui:
    port = harness.free_port()
    return Ui(harness.start_feast_ui(db, PROJECT, port), port, db)


def start_ours(db: Path, **blocks: Any) -> Ui:
    """`blocks` are those of its feature_store.yaml besides."""
    port = harness.free_port()
    options = ["--rest-api", "--rest-port", str(port), "--ui", "auto"]
    return Ui(harness.start_ours(db, *options, blocks=blocks), port, db)
