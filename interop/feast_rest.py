"""Feast's own REST registry server over the registry of a feature_store.yaml: `python feast_rest.py CONFIG PORT`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import fastapi


def tolerate_dropped_arguments() -> None:
    """Feast passes FastAPI two arguments that its current releases refuse, and that older ones ignored."""
    construct = fastapi.FastAPI.__init__

    def without_them(self: fastapi.FastAPI, **options: Any) -> None:
        for dropped in ("default_status_code", "default_headers"):
            options.pop(dropped, None)
        construct(self, **options)

    fastapi.FastAPI.__init__ = without_them  # type: ignore[method-assign]


def main(config: str, port: str) -> None:
    from feast import FeatureStore
    from feast.api.registry.rest.rest_registry_server import RestRegistryServer

    store = FeatureStore(repo_path=str(Path(config).parent), fs_yaml_file=Path(config))
    RestRegistryServer(store).start_server(int(port), host="127.0.0.1")


if __name__ == "__main__":
    tolerate_dropped_arguments()
    main(*sys.argv[1:])
