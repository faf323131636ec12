"""Proves that an acknowledged write survives kill -9 of the server, and that SIGTERM lets calls finish.

Several client processes write entities and intervals without a pause and note what was acknowledged. The
server is killed twenty times under them and started again on the same file. At the end every noted write is
there, no interval is there twice, and SQLite finds its file sound.
"""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

import grpc
from feast.protos.feast.registry import RegistryServer_pb2 as api

import harness
import kinds
from differential import Answer, ask
from loads import assert_kept, count

CLIENTS = 4
KILLS = 20
UNDER_LOAD_S = 0.4


def test_twenty_kills_lose_nothing(nursery: harness.Nursery, tmp_path: Path, project: str) -> None:
    db, port = tmp_path / "registry.db", harness.free_port()
    server = harness.start_ours(db, port=port)
    try:
        ask(server, *kinds.FEATURE_VIEW.apply(kinds.FEATURE_VIEW.proto("view"), project)).ok()
        folder = tmp_path / "load"
        jobs = [["load", str(port), project, "view", str(client)] for client in range(CLIENTS)]
        workers = harness.Workers(nursery, folder, jobs).go()
        try:
            written = [0]
            for round_number in range(KILLS):
                goal = time.monotonic() + UNDER_LOAD_S
                # Do not kill a server that has not yet been written to: that would prove nothing.
                harness.wait_until(
                    lambda: count(folder) > written[-1] + 2 * CLIENTS,
                    30,
                    f"writes before kill number {round_number + 1}",
                )
                time.sleep(max(0.0, goal - time.monotonic()))
                server.kill()
                harness.assert_sound(db)
                server = harness.start_ours(db, port=port)
                written.append(assert_kept(server, project, folder))
            (folder / "stop").touch()
            finished = workers.finish(60)
        except BaseException:
            workers.kill()
            raise
        failed = sum(worker.result["failed"] for worker in finished)
        assert failed >= KILLS, f"only {failed} calls failed: the server was not under load when it was killed"
        assert assert_kept(server, project, folder) > KILLS * CLIENTS
        assert server.stop() == 0
        harness.assert_sound(db)
    finally:
        server.kill()


def test_sigterm_finishes_what_is_in_flight(tmp_path: Path, project: str) -> None:
    """Calls that the server has taken are answered and durable; then it exits with 0, promptly, and says so once."""
    db = tmp_path / "registry.db"
    server = harness.start_ours(db)
    try:
        names = [f"e{i}" for i in range(200)]
        answers: dict[str, Answer] = {}
        started = threading.Event()

        def write(part: list[str]) -> None:
            for name in part:
                answers[name] = ask(
                    server, *kinds.ENTITY.apply(kinds.ENTITY.proto(name, description="x" * 10_000), project)
                )
                started.set()

        threads = [threading.Thread(target=write, args=(names[i::8],)) for i in range(8)]
        for thread in threads:
            thread.start()
        started.wait(10)
        server.process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join(30)
        assert server.process.wait(15) == 0, server.log_tail()
        codes = {answer.code for answer in answers.values()}
        assert codes <= {None, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}, codes
        kept = {name for name, answer in answers.items() if answer.code is None}
        assert 0 < len(kept) < len(names), "the signal did not arrive in the middle of the calls"
        # A call that was cut off would be UNAVAILABLE after the server had taken it; at most the calls that were
        # on their way to a listener that had closed may end so, and none of those may be half done.
        server.close_channel()
        harness.assert_sound(db)
        stored = {row["entity_name"] for row in harness.rows(db, "SELECT entity_name FROM entities")}
        assert kept <= stored, f"acknowledged and lost: {sorted(kept - stored)[:5]}"
    finally:
        server.kill()


def test_sigterm_answers_a_long_call(tmp_path: Path, project: str) -> None:
    """A large answer that is being made when the signal arrives is still delivered whole."""
    server = harness.start_ours(tmp_path / "registry.db")
    try:
        for index in range(8):
            proto = kinds.ENTITY.proto(f"e{index}", description="x" * (8 << 20))
            ask(server, *kinds.ENTITY.apply(proto, project)).ok()
        call = server.stub.ListEntities.future(api.ListEntitiesRequest(project=project), timeout=60)
        time.sleep(0.02)
        server.process.send_signal(signal.SIGTERM)
        assert len(call.result().entities) == 8
        assert server.process.wait(30) == 0, server.log_tail()
    finally:
        server.kill()


def test_sigterm_with_an_idle_client(own_server: harness.Server) -> None:
    """An open channel without calls does not keep the server alive."""
    ask(own_server, "ListProjects", api.ListProjectsRequest()).ok()
    own_server.process.send_signal(signal.SIGTERM)
    assert own_server.process.wait(15) == 0, own_server.log_tail()
