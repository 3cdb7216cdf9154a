"""Where a source's tables lie, as files or in a database, when no function delivers them."""

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from aios_platform.contracts.record import Record

PASSWORDS = (
    re.compile(r"://[^/@:]*:([^@]*)@"),
    re.compile(r"[?&][a-z]*password=([^&]*)", re.IGNORECASE),
)
VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class Stored(Record):
    """One table of the source: files, or the rows of an SQL query.

    The rows of a window are those whose `timestamp` lies in it.
    """

    path: str | None = Field(
        default=None,
        description="Path or fsspec URL of a Parquet or CSV file, or of a folder of them; path or "
        "URL of a Delta table. `{window}` in it stands for the window's key.",
    )
    format: Literal["parquet", "csv", "delta"] | None = Field(
        default=None,
        description="Unset, what the path's suffix says. delta needs the extra `delta`.",
    )
    url: str | None = Field(
        default=None,
        description="SQLAlchemy URL of a database. Write its password as `${NAME}`: it is taken "
        "from the environment.",
    )
    query: str | None = Field(
        default=None,
        description="SELECT whose rows they are. `:start` and `:end` in it stand for bounds a day "
        "wider than the window (timestamps in UTC, without a zone); the window is cut from what "
        "comes.",
    )
    row_number: str | None = Field(
        default=None,
        description="Column to add: the number of the row in the file, from 0, as text. For rows "
        "without a name of their own; a file that is rewritten must keep its order.",
    )
    known_after_days: dict[str, float] = Field(
        default_factory=dict,
        description="Timestamp columns to add: so many days after the row's `timestamp`. For "
        "files that do not say when a value became known.",
    )
    timezone: str = Field(
        default="UTC", description="Zone of timestamps that are written without one."
    )

    @field_validator("url")
    @classmethod
    def _no_password(cls, value: str | None) -> str | None:
        found = [match.group(1) for one in PASSWORDS for match in one.finditer(value or "")]
        if any(password and not VARIABLE.fullmatch(password) for password in found):
            raise ValueError(
                "the URL holds a password; write ${NAME} in its place and set NAME in the "
                "environment"
            )
        return value

    @model_validator(mode="after")
    def _one_place(self) -> "Stored":
        if (self.path is None) == (self.url is None):
            raise ValueError("give either path, or url and query")
        if (self.url is None) != (self.query is None):
            raise ValueError("url and query go together")
        if self.query is not None and self.row_number is not None:
            raise ValueError("rows of a query have no number: select a column that names them")
        if self.format == "delta" and self.row_number is not None:
            raise ValueError("rows of a Delta table have no number: name a column of its own")
        if self.path is not None and self.format is None and self.suffix is None:
            raise ValueError(f"'{self.path}' ends with neither .parquet nor .csv; give format")
        return self

    @property
    def suffix(self) -> Literal["parquet", "csv"] | None:
        """The format that the path's suffix says."""
        path = (self.path or "").lower()
        if path.endswith((".parquet", ".pq")):
            return "parquet"
        return "csv" if path.endswith((".csv", ".csv.gz")) else None
