"""Entity keys in the bytes under which Feast stores them."""

import struct
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from aios_platform.features.online_plan import OnlineEntity

# Feast's ValueType numbers, and the whole numbers that fit.
TYPES = {"STRING": 2, "INT32": 3, "INT64": 4}
PACK = {"INT32": struct.Struct("<i").pack, "INT64": struct.Struct("<q").pack}
Key = Any
"""A value, or a tuple of values of a composite key."""


def key_of(entity: OnlineEntity, places: Mapping[str, int]) -> Callable[[tuple[Any, ...]], Key]:
    """What takes an entity's key out of a row; None for a key with a null in it.

    Args:
        entity: The entity.
        places: Place of each input in a row.
    """
    if not entity.inputs:
        return lambda _: ()
    take: Callable[[tuple[Any, ...]], Key] = itemgetter(*(places[n] for n in entity.inputs))
    if len(entity.inputs) == 1:
        return take

    def composite(row: tuple[Any, ...]) -> Key:
        values = take(row)
        return None if None in values else values

    return composite


def serializer(entity: OnlineEntity) -> Callable[[Key], bytes | None]:
    """What serializes an entity's keys as Feast does (`serialize_entity_key`, version 3).

    The result is None for a key that no stored entity can have, such as a number out of range.
    """
    head = struct.pack("<I", len(entity.join_keys))
    for name in entity.join_keys:
        head += struct.pack("<II", TYPES["STRING"], len(name.encode())) + name.encode()
    if not entity.inputs:
        head += struct.pack("<II", TYPES["STRING"], 0)
        return lambda _: head
    parts = [_part(type_) for type_ in entity.types]
    if len(parts) == 1:
        [part] = parts

        def single(key: Key) -> bytes | None:
            try:
                return head + part(key)
            except (struct.error, UnicodeEncodeError):
                return None

        return single

    def composite(key: Key) -> bytes | None:
        try:
            return head + b"".join([part(v) for part, v in zip(parts, key, strict=True)])
        except (struct.error, UnicodeEncodeError):
            return None

    return composite


def _part(type_: str) -> Callable[[Any], bytes]:
    number, lengths = TYPES[type_], struct.Struct("<II").pack
    if type_ == "STRING":

        def text(value: str) -> bytes:
            encoded = value.encode()
            return lengths(number, len(encoded)) + encoded

        return text
    pack = PACK[type_]
    mark = lengths(number, len(pack(0)))
    return lambda value: mark + pack(value)


def bytea_array(keys: Sequence[bytes]) -> bytes:
    """Keys as a Postgres `bytea[]` in binary: dimensions, nulls, type, length, lower bound, items.

    `array_recv` in src/backend/utils/adt/arrayfuncs.c reads it.
    """
    if not keys:
        return struct.pack(">iii", 0, 0, BYTEA)
    length = struct.Struct(">i").pack
    parts = [struct.pack(">iiiii", 1, 0, BYTEA, len(keys), 1)]
    for key in keys:
        parts += (length(len(key)), key)
    return b"".join(parts)


BYTEA = 17
