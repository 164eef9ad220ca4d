"""The messages on the wire are the protocol's, and the committed ones are made of the committed .proto."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from tritonclient.grpc import service_pb2 as triton

from service.rpc import generate, server
from service.rpc import open_inference_pb2 as ours

OWN_FIELDS = {
    ("RepositoryModelLoadResponse", "model_name"),
    ("RepositoryModelLoadResponse", "isLoaded"),
    ("RepositoryModelUnloadResponse", "model_name"),
    ("RepositoryModelUnloadResponse", "isUnloaded"),
}
"""KServe's; Triton's answers are empty there."""


def test_the_generated_messages_are_up_to_date() -> None:
    """`make protos` would write what is committed."""
    assert dict(generate.generated()) == {
        name: (generate.FOLDER / name).read_text() for name in ("open_inference_pb2.py", "open_inference_pb2.pyi")
    }


def test_the_messages_are_those_of_tritons_clients() -> None:
    """Every field of ours has Triton's name, number and type, though both packages share one process."""
    theirs, own = _fields(triton.DESCRIPTOR.message_types_by_name), _fields(ours.DESCRIPTOR.message_types_by_name)
    added = {field: how for field, how in own.items() if field not in theirs}
    assert {(message.partition(".")[2], name) for message, name in added} == OWN_FIELDS
    assert {field: how for field, how in own.items() if field in theirs} == {
        field: how for field, how in theirs.items() if field in own
    }


def test_the_methods_are_those_of_tritons_clients() -> None:
    """Every method of ours takes and gives Triton's messages."""
    theirs = triton.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    own = ours.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    assert own.full_name == server.INFERENCE
    for name, method in own.methods_by_name.items():
        assert (method.input_type.full_name, method.output_type.full_name) == (
            theirs[name].input_type.full_name,
            theirs[name].output_type.full_name,
        )


def _fields(messages: Mapping[str, Descriptor]) -> dict[tuple[str, str], tuple[object, ...]]:
    """How each field of the messages, and of those in them, is on the wire, by message and name."""
    found: dict[tuple[str, str], tuple[object, ...]] = {}
    for message in messages.values():
        found |= {(message.full_name, field.name): _on_the_wire(field) for field in message.fields}
        found |= _fields(message.nested_types_by_name)
    return found


def _on_the_wire(field: FieldDescriptor) -> tuple[object, ...]:
    kind = None if field.message_type is None else field.message_type.full_name
    return field.number, field.type, field.is_repeated, kind
