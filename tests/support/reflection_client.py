"""A gRPC client that knows an address and nothing else: all it needs it learns by server reflection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase


class ReflectionClient:
    """Calls unary methods with JSON-like mappings. Has a descriptor pool of its own, so no stub can help it."""

    def __init__(self, channel: grpc.Channel, *, metadata: Sequence[tuple[str, str]] = ()) -> None:
        """`metadata` goes out with every call that is not reflection, e.g. an API key."""
        self._channel = channel
        self._metadata = list(metadata)
        self._database = ProtoReflectionDescriptorDatabase(channel)
        self._pool = DescriptorPool(self._database)

    def services(self) -> list[str]:
        """Full names of what the server offers."""
        return list(self._database.get_services())

    def call(self, service: str, method: str, request: Mapping[str, Any], *, timeout_s: float = 10.0) -> dict[str, Any]:
        """The response as JSON, fields at their defaults included."""
        found = self._pool.FindServiceByName(service).FindMethodByName(method)
        message = json_format.ParseDict(dict(request), GetMessageClass(found.input_type)())
        invoke: Any = self._channel.unary_unary(
            f"/{service}/{method}",
            request_serializer=lambda value: value.SerializeToString(),
            response_deserializer=GetMessageClass(found.output_type).FromString,
        )
        response = invoke(message, timeout=timeout_s, metadata=self._metadata)
        return dict(
            json_format.MessageToDict(
                response, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
            )
        )
