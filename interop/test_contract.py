"""Proves that our .proto files say what Feast's do, as far as the service RegistryServer reaches.

Our descriptors (registry-core/src/proto/descriptors.bin, a FileDescriptorSet) are held against those inside
the installed feast package, field by field and in both directions: nothing missing, nothing extra.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from feast.protos.feast.registry import RegistryServer_pb2
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, ServiceDescriptor

DESCRIPTORS = Path(__file__).resolve().parents[1] / "registry-core" / "src" / "proto" / "descriptors.bin"
SERVICE = "feast.registry.RegistryServer"
OUR_PACKAGES = ("feast.core", "feast.types", "feast.registry")


@pytest.fixture(scope="module")
def files() -> descriptor_pb2.FileDescriptorSet:
    assert DESCRIPTORS.is_file(), f"no {DESCRIPTORS.name}: build registry-core first, its build writes the file"
    return descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes())


@pytest.fixture(scope="module")
def our_pool(files: descriptor_pb2.FileDescriptorSet) -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    present = {file.name for file in files.file}
    waiting = list(files.file)
    # A FileDescriptorSet lists dependencies first, except when its writer did not care: add what is ready.
    added: set[str] = set()
    while waiting:
        ready = [file for file in waiting if all(d in added or d not in present for d in file.dependency)]
        assert ready, f"import cycle among {[file.name for file in waiting]}"
        for file in ready:
            missing = [d for d in file.dependency if d not in present]
            for name in missing:
                if name not in added:
                    well_known(name).CopyToProto(proto := descriptor_pb2.FileDescriptorProto())
                    pool.Add(proto)
                    added.add(name)
            pool.Add(file)
            added.add(file.name)
            waiting.remove(file)
    return pool


def well_known(name: str) -> Any:
    """google/protobuf/*.proto may be left out of a descriptor set; the runtime knows them."""
    import google.protobuf.duration_pb2
    import google.protobuf.empty_pb2
    import google.protobuf.timestamp_pb2  # noqa: F401

    return descriptor_pool.Default().FindFileByName(name)


def closure(service: ServiceDescriptor) -> dict[str, Descriptor | EnumDescriptor]:
    """Every message and enum that the service's methods reach, by full name."""
    found: dict[str, Descriptor | EnumDescriptor] = {}
    waiting: list[Descriptor] = [t for m in service.methods for t in (m.input_type, m.output_type)]
    while waiting:
        message = waiting.pop()
        if message.full_name in found:
            continue
        found[message.full_name] = message
        for field in message.fields:
            if field.message_type is not None:
                waiting.append(field.message_type)
            if field.enum_type is not None:
                found[field.enum_type.full_name] = field.enum_type
    return found


def describe_field(field: FieldDescriptor, proto: descriptor_pb2.FieldDescriptorProto) -> dict[str, Any]:
    return {
        "name": field.name,
        "number": field.number,
        "type": descriptor_pb2.FieldDescriptorProto.Type.Name(field.type),
        "of": (field.message_type or field.enum_type).full_name if (field.message_type or field.enum_type) else None,
        "label": descriptor_pb2.FieldDescriptorProto.Label.Name(proto.label),
        "oneof": field.containing_oneof.name if field.containing_oneof else None,
        "proto3_optional": proto.proto3_optional,
        "packed": field.is_packed if hasattr(field, "is_packed") else None,
        "presence": field.has_presence,
        "json_name": field.json_name,
    }


def describe(thing: Descriptor | EnumDescriptor) -> dict[str, Any]:
    """Everything about a message or an enum that decides what its bytes mean."""
    if isinstance(thing, EnumDescriptor):
        return {"enum": {value.name: value.number for value in thing.values}}
    proto = descriptor_pb2.DescriptorProto()
    thing.CopyToProto(proto)
    by_number = {field.number: field for field in proto.field}
    return {
        "fields": {f.number: describe_field(f, by_number[f.number]) for f in thing.fields},
        "oneofs": {o.name: [f.number for f in o.fields] for o in thing.oneofs},
        "map_entry": thing.GetOptions().map_entry,
        "reserved": [(r.start, r.end) for r in proto.reserved_range],
    }


def differences(path: str, theirs: Any, ours: Any) -> Iterator[str]:
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in sorted(theirs.keys() | ours.keys(), key=str):
            if key not in ours:
                yield f"{path}.{key} is missing from ours (theirs: {theirs[key]})"
            elif key not in theirs:
                yield f"{path}.{key} is only in ours ({ours[key]})"
            else:
                yield from differences(f"{path}.{key}", theirs[key], ours[key])
    elif theirs != ours:
        yield f"{path}: theirs {theirs!r}, ours {ours!r}"


THEIR_SERVICE = RegistryServer_pb2.DESCRIPTOR.services_by_name["RegistryServer"]


def test_the_service_has_the_same_methods(our_pool: descriptor_pool.DescriptorPool) -> None:
    def methods(service: ServiceDescriptor) -> dict[str, Any]:
        return {
            m.name: {
                "input": m.input_type.full_name,
                "output": m.output_type.full_name,
                "client_streaming": m.client_streaming,
                "server_streaming": m.server_streaming,
            }
            for m in service.methods
        }

    theirs, ours = methods(THEIR_SERVICE), methods(our_pool.FindServiceByName(SERVICE))
    assert len(theirs) == 55, "the reference feast has another number of RPCs: is another version installed?"
    found = list(differences(SERVICE, theirs, ours))
    assert not found, "\n".join(found)


def test_every_reachable_message_and_enum_is_the_same(our_pool: descriptor_pool.DescriptorPool) -> None:
    theirs, ours = closure(THEIR_SERVICE), closure(our_pool.FindServiceByName(SERVICE))
    assert len(theirs) > 150, f"the closure has only {len(theirs)} types: the walk is broken"
    found = list(
        differences(
            "",
            {name: describe(thing) for name, thing in theirs.items()},
            {name: describe(thing) for name, thing in ours.items()},
        )
    )
    assert not found, "\n".join(found)


def test_our_files_hold_nothing_else(files: descriptor_pb2.FileDescriptorSet) -> None:
    """Nothing extra in our packages: each top-level type of ours exists in Feast's closure or beside it."""
    theirs = descriptor_pool.Default()
    for file in files.file:
        if file.package in OUR_PACKAGES:
            for kind, names in (("message", file.message_type), ("enum", file.enum_type)):
                for thing in names:
                    full_name = f"{file.package}.{thing.name}"
                    find = theirs.FindMessageTypeByName if kind == "message" else theirs.FindEnumTypeByName
                    try:
                        find(full_name)
                    except KeyError:
                        pytest.fail(f"{kind} {full_name} exists only in our .proto files")
            assert [service.name for service in file.service] in ([], ["RegistryServer"])
