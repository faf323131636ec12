"""A long load with restarts of the server and of its database: is every acknowledged write there, is the memory flat?

No test of a run, since it takes minutes: `cargo xtask soak`, or `python soak.py --minutes 10` with the variables that
`cargo xtask services` prints.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import json
import multiprocessing
import signal
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import grpc
from feast.protos.feast.registry import RegistryServer_pb2 as api
from feast.protos.feast.registry import RegistryServer_pb2_grpc

import harness
import kinds
import throwaway
from monitoring import Scraped

PROJECT = "soak"
NAMES_EACH = 20
"""How many entities each writer writes, over and over: so the registry does not grow, and memory has no reason to."""
WRITE_EVERY = 0.2
READ_EVERY = 5.0


def stub_of(port: int) -> tuple[grpc.Channel, RegistryServer_pb2_grpc.RegistryServerStub]:
    # A server that is away for a moment is asked again soon.
    options = [*harness.UNLIMITED, ("grpc.max_reconnect_backoff_ms", 500), ("grpc.initial_reconnect_backoff_ms", 100)]
    channel = grpc.insecure_channel(f"{harness.HOST}:{port}", options=options)
    return channel, RegistryServer_pb2_grpc.RegistryServerStub(channel)


def write(port: int, writers: range, stop: Any, results: Any) -> None:
    """Writers, each with entities of its own that it numbers; what was acknowledged last, and what may have been stored."""
    told: dict[str, int] = {}
    tried: dict[str, int] = {}
    codes: collections.Counter[str] = collections.Counter()
    times: list[float] = []

    def run(writer: int) -> None:
        channel, stub = stub_of(port)
        for number in itertools.count(1):
            if stop.is_set():
                break
            name = f"e{writer}_{number % NAMES_EACH}"
            entity = kinds.ENTITY.proto(name)
            entity.spec.description = str(number)
            rpc, request = kinds.ENTITY.apply(entity, PROJECT)
            tried[name] = number
            began = time.monotonic()
            try:
                getattr(stub, rpc)(request, timeout=20)
                told[name] = number
                codes["OK"] += 1
                times.append(time.monotonic() - began)
            except grpc.RpcError as error:
                codes[error.code().name] += 1
            time.sleep(max(0.0, WRITE_EVERY - (time.monotonic() - began)))
        channel.close()

    threads = [threading.Thread(target=run, args=[writer]) for writer in writers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    times.sort()
    results.put(("writes", told, tried, dict(codes), times[len(times) // 2], times[len(times) * 99 // 100]))


def read(port: int, connections: int, stop: Any, results: Any) -> None:
    """Connections that each read something now and then."""
    channels = [stub_of(port) for _ in range(connections)]
    codes: collections.Counter[str] = collections.Counter()
    pause = READ_EVERY / connections
    request = api.GetEntityRequest(name="e0_1", project=PROJECT, allow_cache=True)
    under_way: collections.deque = collections.deque()
    for _, stub in itertools.cycle(channels):
        if stop.is_set():
            break
        began = time.monotonic()
        under_way.append(stub.GetEntity.future(request, timeout=10))
        while under_way and (under_way[0].done() or len(under_way) > 2_000):
            codes[under_way.popleft().code().name] += 1
        time.sleep(max(0.0, pause - (time.monotonic() - began)))
    codes.update(call.code().name for call in under_way)
    results.put(("reads", dict(codes)))


class Soak:
    def __init__(self, server: harness.Server, metrics: int) -> None:
        self.server, self.metrics = server, metrics
        self.memory: list[list[float]] = [[]]
        self.connections = 0.0

    def sample(self, seconds: float) -> None:
        """Notes the memory of the server every few seconds for so long."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(5)
            scraped = Scraped.of(self.metrics)
            self.memory[-1].append(scraped.sum("process_resident_memory_bytes") / (1 << 20))
            self.connections = max(self.connections, scraped.sum("feast_registry_connections"))

    def restart(self, how: signal.Signals) -> None:
        self.server.close_channel()
        self.server.process.send_signal(how)
        self.server.process.wait(60)
        self.server.revive()
        self.memory.append([])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--connections", type=int, default=1_000)
    parser.add_argument("--writers", type=int, default=64)
    parser.add_argument("--database", choices=sorted(throwaway.KINDS), default="postgres")
    arguments = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    stop, results = spawn.Event(), spawn.Queue()
    with throwaway.running(arguments.database) as database, tempfile.TemporaryDirectory() as folder:
        place = database.database()
        place.folder = Path(folder)
        metrics = harness.free_port()
        address = f"{harness.HOST}:{metrics}"
        server = harness.start_ours(place, "--metrics-addr", address, "--wait-for-storage", "60")
        with harness.running(server):
            soak = Soak(server, metrics)
            shares = [range(first, min(first + 16, arguments.writers)) for first in range(0, arguments.writers, 16)]
            work = [spawn.Process(target=write, args=[server.port, share, stop, results]) for share in shares]
            work.append(spawn.Process(target=read, args=[server.port, arguments.connections, stop, results]))
            for process in work:
                process.start()
            # Three quarters of the time without a restart of the server, to see its memory.
            unit = arguments.minutes * 60 / 10
            events = [
                ("the database crashes", lambda: (database.end(database.crash), time.sleep(3), database.start())),
                ("the server is told to stop and started again", lambda: soak.restart(signal.SIGTERM)),
                ("the database crashes", lambda: (database.end(database.crash), time.sleep(3), database.start())),
                ("the server is killed and started again", lambda: soak.restart(signal.SIGKILL)),
            ]
            for pause, (what, event) in zip([1, 1, 1, 1], events, strict=True):
                soak.sample(pause * unit)
                print(f"{what}", flush=True)
                event()
            soak.sample(6 * unit)
            stop.set()
            told, tried, writes, reads, took = {}, {}, collections.Counter(), {}, []
            for _ in work:
                match results.get(timeout=120):
                    case ("writes", some_told, some_tried, codes, median, high):
                        told |= some_told
                        tried |= some_tried
                        writes.update(codes)
                        took.append((median, high))
                    case ("reads", codes):
                        reads = codes
            for process in work:
                process.join()
            listed = server.stub.ListEntities(api.ListEntitiesRequest(project=PROJECT))
            stored = {entity.spec.name: int(entity.spec.description) for entity in listed.entities}
    lost = {name: (number, stored.get(name)) for name, number in told.items() if stored.get(name, 0) < number}
    strange = {name for name, number in stored.items() if number > tried.get(name, 0)}
    print(f"writes: {dict(writes)}; median and 99 % in s, by process: {[(round(a, 4), round(b, 4)) for a, b in took]}")
    print(f"reads: {reads}; most connections at once: {soak.connections:.0f}")
    shown = [[round(value) for value in epoch[:: max(1, len(epoch) // 12)]] for epoch in soak.memory]
    print(f"memory in MiB, from each start of the server on: {json.dumps(shown)}")
    print(f"acknowledged and lost: {len(lost)} of {len(told)} entities {dict(itertools.islice(lost.items(), 3))}")
    assert not lost and not strange, (lost, strange)


if __name__ == "__main__":
    main()
