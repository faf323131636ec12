"""What the tests run in processes of their own: `python workers.py JOB ARGS…`.

Jobs started by `harness.run_workers` share a barrier: a job imports and connects first, says that it is
ready, waits until all are, does its work, and leaves a JSON result with the moments it started and ended.

Importing feast takes four seconds of CPU time. The job `nursery` does it once and forks a process for each
job that it is then asked for; nothing of gRPC runs in the nursery itself, so the forks are clean.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness


def behind_barrier(work: Callable[[], dict[str, Any]]) -> None:
    folder, index = Path(os.environ["INTEROP_BARRIER"]), os.environ["INTEROP_INDEX"]
    (folder / f"ready-{index}").touch()
    harness.wait_until((folder / "go").exists, 180, "the start signal")
    started = time.time()
    result = work()
    result |= {"started": started, "ended": time.time()}
    temporary = folder / f"partial-{index}"
    temporary.write_text(json.dumps(result))
    temporary.rename(folder / f"result-{index}")


def feast_server(db: str, port: str) -> None:
    """Feast's registry server over its SqlRegistry, as `feast serve_registry` starts it."""
    from feast import FeatureStore, RepoConfig
    from feast.registry_server import start_server

    config = RepoConfig(
        project="oracle",
        provider="local",
        registry={"registry_type": "sql", "path": f"sqlite:///{db}", "cache_ttl_seconds": 600},
        online_store={"type": "sqlite", "path": f"{db}.online"},
        entity_key_serialization_version=3,
    )
    start_server(FeatureStore(config=config), int(port))


def cli(*args: str) -> None:
    """The `feast` command line."""
    from feast.cli.cli import cli as feast_cli

    feast_cli(args=list(args), prog_name="feast")


def raced_cli(*args: str) -> None:
    """The `feast` command line behind the barrier, so that several commands overlap."""
    from feast.cli.cli import cli as feast_cli

    def work() -> dict[str, Any]:
        feast_cli(args=list(args), prog_name="feast", standalone_mode=False)
        return {}

    behind_barrier(work)


def materialize(port: str, project: str, view: str, first: str, count: str) -> None:
    """`count` calls of apply_materialization through Feast's remote client, windows `first`, `first + 1`, …"""
    registry = harness.remote_registry(int(port), project)
    feature_view = registry.get_feature_view(view, project)
    windows = harness.hour_windows(int(first) + int(count))[int(first) :]

    def work() -> dict[str, Any]:
        for start, end in windows:
            registry.apply_materialization(feature_view, project, start, end)
        return {"acknowledged": len(windows)}

    behind_barrier(work)


def entities(target: str, project: str, prefix: str, count: str) -> None:
    """`count` entities of our own: `target` is a port (remote client) or a URL (Feast's SqlRegistry)."""
    from feast import Entity, ValueType

    if target.isdigit():
        registry = harness.remote_registry(int(target), project)
    else:
        registry = harness.sql_registry(target, project)

    def work() -> dict[str, Any]:
        names = [f"{prefix}_{i}" for i in range(int(count))]
        for name in names:
            registry.apply_entity(Entity(name=name, join_keys=[name], value_type=ValueType.INT64), project)
        return {"acknowledged": names}

    behind_barrier(work)


def meet(number: int, count: int) -> None:
    """Waits until all `count` workers have come to round `number`, and lets them go on within a millisecond."""
    folder, index = Path(os.environ["INTEROP_BARRIER"]), os.environ["INTEROP_INDEX"]
    (folder / f"round-{number}-{index}").touch()
    places = [folder / f"round-{number}-{i}" for i in range(count)]
    deadline = time.monotonic() + 60
    while not all(place.exists() for place in places):
        assert time.monotonic() < deadline, f"not all {count} workers came to round {number}"
        time.sleep(0.0005)


def schemas(port: str, project: str, view: str, rounds: str, count: str) -> None:
    """In each round, all `count` workers at once give the view a schema, each with a field that nobody else has."""
    from feast import Field

    import kinds

    registry = harness.remote_registry(int(port), project)
    index = os.environ["INTEROP_INDEX"]

    def work() -> dict[str, Any]:
        calls = []
        for number in range(int(rounds)):
            name = f"field_{index}_{number}"
            changed = kinds.feature_view(view, fields=[*kinds.RIDES, Field(name=name, dtype=kinds.Int64)])
            meet(number, int(count))
            began = time.time()
            registry.apply_feature_view(changed, project)
            calls.append({"field": name, "began": began, "ended": time.time()})
        return {"calls": calls}

    behind_barrier(work)


def mixed(target: str, project: str, count: str) -> None:
    """`count` rounds of writes to what all write (an entity, a view's intervals and tags) and to what only this one does.

    `target` is a port (remote client) or a URL (Feast's SqlRegistry). Feast's own registry may fail, which is noted; ours
    may not.
    """
    from feast import Entity, ValueType

    import kinds

    index, is_ours = os.environ["INTEROP_INDEX"], target.isdigit()
    registry = (harness.remote_registry if is_ours else harness.sql_registry)(
        int(target) if is_ours else target, project
    )
    windows = harness.hour_windows(int(index) * 1000 + int(count))[int(index) * 1000 :]
    done: dict[str, list[Any]] = {"own": [], "same": [], "intervals": [], "views": [], "failed": []}
    slowest = 0.0

    def attempt(kind: str, what: Any, call: Callable[[], None]) -> None:
        nonlocal slowest
        began = time.monotonic()
        try:
            call()
        except Exception as error:
            if is_ours:
                raise
            done["failed"].append(f"{kind} {what}: {type(error).__name__}")
        else:
            done[kind].append(what)
        slowest = max(slowest, time.monotonic() - began)

    def an_entity(name: str, **meta: Any) -> None:
        registry.apply_entity(Entity(name=name, join_keys=["k"], value_type=ValueType.INT64, **meta), project)

    def work() -> dict[str, Any]:
        for number, window in enumerate(windows):
            mark, view = f"{index}-{number}", kinds.feature_view("view")
            attempt("own", f"own-{mark}", lambda: an_entity(f"own-{mark}"))
            attempt("same", mark, lambda: an_entity("same", tags={"mark": mark}))
            seconds = [int(moment.timestamp()) for moment in window]
            attempt("intervals", seconds, lambda: registry.apply_materialization(view, project, *window))
            if number % 4 == 0:
                tagged = kinds.feature_view("view", tags={"mark": mark})
                attempt("views", mark, lambda: registry.apply_feature_view(tagged, project))
        return {**done, "slowest": slowest}

    behind_barrier(work)


class Client:
    """Calls of the load, without Feast's client in between, over a channel that soon connects again."""

    def __init__(self, port: str, project: str, view: str, timeout: float) -> None:
        from feast.protos.feast.registry import RegistryServer_pb2_grpc as api_grpc

        options = [*harness.UNLIMITED, ("grpc.min_reconnect_backoff_ms", 20), ("grpc.max_reconnect_backoff_ms", 50)]
        channel = harness.grpc.insecure_channel(f"{harness.HOST}:{port}", options=options)
        self.stub = api_grpc.RegistryServerStub(channel)
        self.project, self.view, self.timeout = project, view, timeout

    def apply_entity(self, name: str) -> None:
        from feast.protos.feast.core.Entity_pb2 import Entity, EntitySpecV2
        from feast.protos.feast.registry import RegistryServer_pb2 as api

        entity = Entity(spec=EntitySpecV2(name=name, join_key="k"))
        request = api.ApplyEntityRequest(entity=entity, project=self.project, commit=True)
        self.stub.ApplyEntity(request, timeout=self.timeout)

    def materialize(self, start: int, end: int) -> None:
        from feast.protos.feast.core.FeatureView_pb2 import FeatureView, FeatureViewSpec
        from feast.protos.feast.registry import RegistryServer_pb2 as api

        view = FeatureView(spec=FeatureViewSpec(name=self.view))
        request = api.ApplyMaterializationRequest(feature_view=view, project=self.project, commit=True)
        request.start_date.FromSeconds(start)
        request.end_date.FromSeconds(end)
        self.stub.ApplyMaterialization(request, timeout=self.timeout)

    def get_entity(self, name: str) -> Any:
        from feast.protos.feast.registry import RegistryServer_pb2 as api

        return self.stub.GetEntity(api.GetEntityRequest(name=name, project=self.project), timeout=self.timeout)

    def get_intervals(self) -> set[int]:
        from feast.protos.feast.registry import RegistryServer_pb2 as api

        request = api.GetFeatureViewRequest(name=self.view, project=self.project)
        found = self.stub.GetFeatureView(request, timeout=self.timeout).meta.materialization_intervals
        return {interval.start_time.seconds for interval in found}


def load(port: str, project: str, view: str, client: str) -> None:
    """Writes entities and intervals until told to stop; notes each in a file once it is acknowledged.

    A call that fails (the server is killed under it) is given up, not repeated: its fate is unknown, and the
    next name and the next window are new ones.
    """
    import grpc

    folder = Path(os.environ["INTEROP_BARRIER"])
    acknowledged = (folder / f"acknowledged-{client}").open("a", buffering=1)
    calls = Client(port, project, view, timeout=5)

    def work() -> dict[str, Any]:
        number = failed = 0
        while not (folder / "stop").exists():
            number += 1
            window = int(client) * 1_000_000 + number
            start, end = window * 60, (window + 1) * 60
            try:
                if number % 2:
                    calls.apply_entity(f"e_{client}_{number}")
                    acknowledged.write(f"entity e_{client}_{number}\n")
                else:
                    calls.materialize(start, end)
                    acknowledged.write(f"interval {start} {end}\n")
            except grpc.RpcError as error:
                if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                    raise
                failed += 1
                time.sleep(0.01)
        return {"calls": number, "failed": failed}

    behind_barrier(work)


def outage_load(port: str, project: str, view: str, client: str) -> None:
    """As `load`, while the database goes away and comes back: the server itself stays and must answer every call.

    It may say UNAVAILABLE, of a write that was under way also UNKNOWN, and nothing else that is not right: after each
    write, what this client has written must be there. Notes how long the calls took that failed, and the slowest one of the others.
    """
    import grpc

    folder = Path(os.environ["INTEROP_BARRIER"])
    noted = (folder / f"acknowledged-{client}").open("a", buffering=1)
    calls = Client(port, project, view, timeout=90)
    entities: list[str] = []
    starts: set[int] = set()
    failed: dict[str, list[float]] = {"read": [], "write": []}
    slowest = 0.0

    def attempt(kind: str, call: Callable[[], Any]) -> Any:
        """What the call returns, or None when it says that the database is not available."""
        nonlocal slowest
        began = time.monotonic()
        try:
            answer = call()
        except grpc.RpcError as error:
            is_unknown = kind == "write" and error.code() is grpc.StatusCode.UNKNOWN and "not known" in error.details()
            if error.code() is not grpc.StatusCode.UNAVAILABLE and not is_unknown:
                raise
            failed[kind].append(time.monotonic() - began)
            time.sleep(0.05)
            return None
        slowest = max(slowest, time.monotonic() - began)
        return True if answer is None else answer

    def work() -> dict[str, Any]:
        number = 0
        while not (folder / "stop").exists():
            number += 1
            window = int(client) * 1_000_000 + number
            start, end = window * 60, (window + 1) * 60
            if number % 2:
                name = f"e_{client}_{number}"
                if attempt("write", lambda: calls.apply_entity(name)):
                    entities.append(name)
                    noted.write(f"entity {name}\n")
            elif attempt("write", lambda: calls.materialize(start, end)):
                starts.add(start)
                noted.write(f"interval {start} {end}\n")
            if number % 2 and entities:
                found = attempt("read", lambda: calls.get_entity(entities[-1]))
                assert found is None or found.spec.name == entities[-1]
            elif starts:
                found = attempt("read", calls.get_intervals)
                assert found is None or starts <= found, f"acknowledged and not there: {starts - found}"
            time.sleep(0.01)
        return {"calls": number, "failed": failed, "slowest": slowest}

    behind_barrier(work)


def wheel(*args: str) -> None:
    """A user of the Python package, where that is installed."""
    import wheel_users

    wheel_users.run(*args)


def nursery() -> None:
    """Answers one JSON line on stdin with one on stdout: starts a job, tells whether it ended, waits for it."""
    import feast.cli.cli  # noqa: F401
    import feast.infra.registry.remote  # noqa: F401
    import feast.infra.registry.sql  # noqa: F401

    import kinds  # noqa: F401

    answers, sys.stdout = sys.stdout, sys.stderr

    def answer(**fields: Any) -> None:
        print(json.dumps(fields), file=answers, flush=True)

    answer(ready=True)
    for line in sys.stdin:
        order = json.loads(line)
        if "job" in order:
            answer(pid=fork(order))
        else:
            pid, status = os.waitpid(order["pid"], 0 if order["wait"] else os.WNOHANG)
            answer(code=os.waitstatus_to_exitcode(status) if pid else None)


def fork(order: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(log, stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdout = open(1, "w", buffering=1, closefd=False)
        sys.stderr = open(2, "w", buffering=1, closefd=False)
        os.chdir(order["cwd"])
        os.environ.update(order["env"])
        JOBS[order["job"][0]](*order["job"][1:])
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


JOBS: dict[str, Callable[..., None]] = {
    "feast-server": feast_server,
    "nursery": nursery,
    "cli": cli,
    "raced-cli": raced_cli,
    "materialize": materialize,
    "entities": entities,
    "schemas": schemas,
    "mixed": mixed,
    "load": load,
    "outage-load": outage_load,
    "wheel": wheel,
}

if __name__ == "__main__":
    sys.path.insert(0, str(harness.STAND_INS))
    JOBS[sys.argv[1]](*sys.argv[2:])
