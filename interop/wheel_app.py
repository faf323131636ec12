"""An application for gunicorn with `--preload`: the lease is the master's, each worker has a client of its own."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable

import feast.infra.registry.remote  # noqa: F401  (once, for all workers)
import feast_registry
from feast import Entity, ValueType

import harness

PROJECT = "rides"
CONFIG = feast_registry.remote("sqlite:///registry.db", linger=0.5)


@functools.cache
def registry():
    return harness.remote_registry(CONFIG["path"], PROJECT)


def app(environ: dict, start_response: Callable) -> Iterable[bytes]:
    """Writes an entity that has the worker's number, and answers with all that there are."""
    own = Entity(name=f"worker_{os.getpid()}", join_keys=["k"], value_type=ValueType.INT64)
    registry().apply_entity(own, PROJECT)
    start_response("200 OK", [])
    return [" ".join(entity.name for entity in registry().list_entities(PROJECT)).encode()]
