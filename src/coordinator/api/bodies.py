"""JSON bodies of Pydantic models, which the JSON codec does not read by itself.

Pydantic's own rules hold for them: keys as the model spells them, no zero values for
what is missing. Everything else is Go's JSON, as `cmdstream.codecs.json` has it.
"""

import functools
from collections.abc import Iterable
from typing import Any

from cmdstream import DecodeError, EncodeError, JsonCodec, Registry
from cmdstream.codecs.json import JsonBody
from cmdstream.codecs.tagged import Body

__all__ = ["body_of", "codec_of"]


class PydanticBody:
    """The bodies of one Pydantic model."""

    def __init__(self, class_: Any) -> None:
        self._class = class_

    def encode(self, value: Any) -> bytes:
        """Write *value*.

        Raises:
            EncodeError: A field has no encoding.
        """
        try:
            text: str = value.model_dump_json()
        except (TypeError, ValueError) as error:
            raise EncodeError(f"{self._class.__name__}: {error}") from error
        return text.encode()

    def decode(self, body: bytes) -> object:
        """Read a value.

        Raises:
            DecodeError: *body* does not fit the model.
        """
        try:
            value: object = self._class.model_validate_json(body)
        except ValueError as error:
            raise DecodeError(f"{self._class.__name__}: {error}") from error
        return value


@functools.cache
def body_of(class_: type[Any]) -> Body:
    """Return how bodies of *class_* are written and read."""
    if hasattr(class_, "model_validate_json"):
        return PydanticBody(class_)
    return JsonBody(class_)


def codec_of(commands: Iterable[type], results: Iterable[type]) -> JsonCodec:
    """Return the JSON codec of these types, Pydantic models among them."""
    registry = Registry(commands, results)
    models = {
        class_: PydanticBody(class_)
        for class_ in (*registry.commands, *registry.results)
        if hasattr(class_, "model_validate_json")
    }
    return JsonCodec(registry, bodies=models)
