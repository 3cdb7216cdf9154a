"""One value that callers send: its type, its bounds, and what stands for it in old contracts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec

from aios_platform.contracts.declaration import Column, ColumnType
from aios_platform.contracts.serving import EarlierContract
from aios_platform.errors import DeclarationError

# Beyond it a number is infinite in the model's precision.
FLOAT32_MAX = 3.4028234e38
INT_MAX = 2.0**62
TEXT_MAX = 1024
LONG_TEXT_MAX = 65_536
"""Characters of a declared text; a `string` names one of many kinds."""
KINDS = {
    ColumnType.STRING: "string",
    ColumnType.INT: "int",
    ColumnType.FLOAT: "float",
    ColumnType.BOOL: "bool",
    ColumnType.TIMESTAMP: "timestamp",
    ColumnType.VECTOR: "vector",
    ColumnType.TEXT: "text",
}


@dataclass(frozen=True)
class Input:
    """One value that a caller sends.

    Args:
        name: Its name.
        kind: string, int, float, bool, timestamp (ISO 8601 with an offset), vector or text.
        nullable: Whether null is a value of it.
        optional: Whether it may be left out.
        column: The declared column with its bounds; None: only the features need it.
    """

    name: str
    kind: str
    nullable: bool = False
    optional: bool = False
    column: Column | None = None

    @property
    def type(self) -> Any:
        """The type that msgspec checks."""
        low = self.column.min if self.column else None
        high = self.column.max if self.column else None
        kind: Any
        if self.kind in ("float", "int", "vector"):
            most = INT_MAX if self.kind == "int" else FLOAT32_MAX
            least = max(-most, -most if low is None else low)
            most = min(most, most if high is None else high)
            whole = self.kind == "int"
            bounds = msgspec.Meta(
                ge=math.ceil(least) if whole else least, le=math.floor(most) if whole else most
            )
            kind = Annotated[int if whole else float, bounds]
            if self.kind == "vector":
                length = self.length
                kind = Annotated[list[kind], msgspec.Meta(min_length=length, max_length=length)]
        elif self.kind == "bool":
            kind = bool
        elif self.kind == "timestamp":
            kind = Annotated[datetime, msgspec.Meta(tz=True)]
        elif self.kind == "text":
            kind = Annotated[str, msgspec.Meta(max_length=LONG_TEXT_MAX)]
        else:
            kind = Annotated[str, msgspec.Meta(max_length=TEXT_MAX)]
            if self.column is not None and self.column.values:
                kind = Literal[tuple(self.column.values)]  # type: ignore[misc]
        return kind | None if self.nullable or self.optional else kind

    @property
    def length(self) -> int | None:
        """Elements of a vector."""
        return self.column.length if self.column else None

    @property
    def marks(self) -> int:
        """Quotation marks that its name and a value of it take in JSON."""
        return 4 if self.kind in ("string", "timestamp", "text") else 2


def defaults_of(inputs: Sequence[Input], earlier: EarlierContract) -> dict[str, Any]:
    """What stands for the inputs that an earlier contract lacks, by name.

    Raises:
        DeclarationError: A default is no value of its input.
    """
    found = {}
    for entry in inputs:
        if entry.name not in earlier.defaults:
            continue
        value = earlier.defaults[entry.name]
        try:
            # A declaration has numbers, where an input may be whole.
            found[entry.name] = msgspec.convert(value, entry.type, strict=entry.kind != "int")
        except msgspec.ValidationError as error:
            raise DeclarationError(
                f"In serving.contract.earlier, version {earlier.version} gives '{entry.name}' a "
                f"default that it cannot have: {error}.",
                remedy="Give a value that callers could send.",
            ) from None
    return found
