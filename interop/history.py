"""Clients of the service `feast_registry.v1.History`, made of what the server's reflection says."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import Any

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

import harness

SERVICE = "feast_registry.v1.History"


class History:
    """A client of one server."""

    def __init__(self, server: harness.Server) -> None:
        self.channel = harness.open_channel(server.port)
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(self.channel))
        self.methods = {method.name: method for method in pool.FindServiceByName(SERVICE).methods}

    def __enter__(self) -> History:
        return self

    def __exit__(self, *_: Any) -> None:
        self.channel.close()

    def request(self, name: str, **fields: Any) -> Any:
        return message_factory.GetMessageClass(self.methods[name].input_type)(**fields)

    def call(self, name: str, metadata: Iterable[tuple[str, str]] = (), **fields: Any) -> Any:
        """An answer, or a stream of them."""
        method = self.methods[name]
        make = self.channel.unary_stream if method.server_streaming else self.channel.unary_unary
        answer = message_factory.GetMessageClass(method.output_type)
        call = make(
            f"/{SERVICE}/{name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString,
        )
        timeout = None if method.server_streaming else 60
        return call(self.request(name, **fields), metadata=tuple(metadata), timeout=timeout)


class Watcher:
    """Follows a server in a thread of its own, and keeps what it was told, until it is cut off."""

    def __init__(self, server: harness.Server, after: int | None = None) -> None:
        self.history = History(server)
        self.commits: list[Any] = []
        self.reached = after
        self.error: grpc.RpcError | None = None
        self.began = threading.Event()
        self.stream = self.history.call("Watch", **({} if after is None else {"after": after}))
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self) -> None:
        parts = None
        try:
            for event in self.stream:
                self.began.set()
                if event.WhichOneof("event") == "bookmark":
                    self.reached = event.bookmark
                    continue
                commit = event.commit
                if parts is not None:
                    assert parts.revision == commit.revision, "a part of another commit comes between"
                    parts.changes.extend(commit.changes)
                    commit, has_more = parts, commit.has_more
                else:
                    has_more = commit.has_more
                parts = commit if has_more else None
                if not has_more:
                    self.commits.append(commit)
                    self.reached = commit.revision
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.CANCELLED:
                self.error = error

    def cut_off(self) -> None:
        self.stream.cancel()
        self.thread.join(30)
        assert not self.thread.is_alive() and self.error is None, self.error
        self.history.channel.close()

    def revisions(self) -> list[int]:
        return [commit.revision for commit in self.commits]


def key_of(change: Any) -> tuple:
    """What a change is of, as a tuple that begins with the sort of target."""
    sort = change.WhichOneof("target")
    target = getattr(change, sort)
    return (sort, target.project, *(getattr(target, field.name) for field in target.DESCRIPTOR.fields[1:]))


def replayed(commits: Iterable[Any]) -> dict[tuple, bytes]:
    """What is stored after commits, from nothing."""
    stored: dict[tuple, bytes] = {}
    for change in changes_of(commits):
        key = key_of(change)
        if key[0] == "whole_project":
            stored = {other: value for other, value in stored.items() if other[1] != key[1]}
        elif key[0] == "versions":
            stored = {
                other: value for other, value in stored.items() if (other[0], *other[1:3]) != ("version", *key[1:3])
            }
        elif change.after.WhichOneof("state") == "value":
            stored[key] = change.after.value
        else:
            assert change.after.WhichOneof("state") == "absent", change
            stored.pop(key, None)
    return stored


def changes_of(commits: Iterable[Any]) -> Iterator[Any]:
    for commit in commits:
        yield from commit.changes
