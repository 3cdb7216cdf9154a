"""What callers send: typed rows derived from the declaration and the feature service.

A row is a tuple in the order of `InputContract.names`: numericals that the model takes from the
request, its categoricals, texts and vectors, then what only the features need, the prediction time,
the row's id.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from aios_platform.contracts.datasets import FeatureSchema, FieldKind
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.contracts.serving import EarlierContract
from aios_platform.errors import DeclarationError, RequestRefused
from aios_platform.serving.inputs import KINDS, Input, defaults_of

TOLD_MAX = 300

Row = tuple[Any, ...]


class InputContract:
    """One version of what callers send for one model.

    Args:
        inputs: In the order of a row.
        numerical: How many of the first inputs are numericals that the model takes.
        categorical: How many after them are categoricals that the model takes.
        texts: How many after those are texts.
        vectors: How many after those are vectors.
        moment: Name of the input that is the prediction time; None: there is none.
        row_id: Name of the input that names the row.
        version: Number of the contract.
        earlier: How an earlier contract maps to the newest; None: this is the newest.

    Raises:
        DeclarationError: The earlier contract cannot be: two inputs have one name, or a default is
            no value of its input.
    """

    def __init__(
        self,
        inputs: Sequence[Input],
        *,
        numerical: int,
        categorical: int,
        texts: int = 0,
        vectors: int = 0,
        moment: str | None,
        row_id: str,
        version: int,
        earlier: EarlierContract | None = None,
    ) -> None:
        self.inputs = tuple(inputs)
        self.names = tuple(entry.name for entry in inputs)
        self.places: Mapping[str, int] = {name: place for place, name in enumerate(self.names)}
        self.numerical, self.categorical = numerical, categorical
        self.texts, self.vectors = texts, vectors
        self.taken = numerical + categorical + texts + vectors
        """How many of the first inputs the model takes."""
        self.moment = self.places[moment] if moment is not None else None
        self.row_id = self.places[row_id]
        self.version = version
        self.earlier = earlier
        renamed = {new: old for old, new in earlier.rename.items()} if earlier else {}
        filled = defaults_of(self.inputs, earlier) if earlier else {}
        self.sent = tuple(
            Input(renamed.get(e.name, e.name), e.kind, e.nullable, e.optional, e.column)
            for e in inputs
            if e.name not in filled
        )
        if len({e.name for e in self.sent}) != len(self.sent):
            raise DeclarationError(
                f"In serving.contract.earlier, version {version} gives two inputs one name.",
                remedy="Rename each input of the newest contract to a name of its own.",
            )
        self._filled = [filled.get(name) for name in self.names]
        self._given = [place for place, e in enumerate(inputs) if e.name not in filled]
        self._plain = not filled
        self._marks = [e.marks for e in self.sent]
        self._all_marks = sum(self._marks)
        self._nulls = [place for place, e in enumerate(self.sent) if e.nullable or e.optional]
        fields = [(e.name, e.type, None) if e.optional else (e.name, e.type) for e in self.sent]
        self.row_type = msgspec.defstruct(
            "Row", fields, kw_only=True, forbid_unknown_fields=True, gc=False
        )
        rows: Any = list[self.row_type]  # type: ignore[name-defined]
        self._rows = rows
        self.envelope = msgspec.defstruct(
            "PredictRequest",
            [
                ("instance", self.row_type | msgspec.UnsetType, msgspec.UNSET),
                ("instances", rows | msgspec.UnsetType, msgspec.UNSET),
            ],
            kw_only=True,
            forbid_unknown_fields=True,
        )
        self._decode: Callable[[bytes], Any] = msgspec.json.Decoder(self.envelope).decode

    def decode(self, body: bytes) -> tuple[list[Row], bool]:
        """The rows of a JSON body, and whether it was a single `instance`.

        Raises:
            RequestRefused: It is not JSON, or not what the contract says.
        """
        try:
            found = self._decode(body)
        except msgspec.ValidationError as error:
            raise RequestRefused(
                f"The request does not fit contract {self.version}: {_cut(error)}.",
                code="invalid_input",
                remedy="The model's OpenAPI document describes its inputs.",
            ) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RequestRefused(
                f"The body is not JSON: {_cut(error)}.",
                code="malformed_body",
                remedy="Send JSON in UTF-8, without NaN or Infinity.",
            ) from None
        single = found.instance is not msgspec.UNSET
        if single is (found.instances is not msgspec.UNSET):
            raise RequestRefused(
                "The request must hold either 'instance' or 'instances'.", code="invalid_input"
            )
        structs = [found.instance] if single else found.instances
        if not structs:
            raise RequestRefused("The request holds no rows.", code="invalid_input")
        rows = [msgspec.structs.astuple(struct) for struct in structs]
        if body.count(b'"') != self._quotes(rows):
            refuse_repeats(body)
        return (rows if self._plain else [self._whole(row) for row in rows]), single

    def convert(self, records: list[dict[str, Any]]) -> list[Row]:
        """The rows of records that came in another form than JSON.

        Raises:
            RequestRefused: One does not fit the contract.
        """
        try:
            structs = msgspec.convert(records, self._rows)
        except msgspec.ValidationError as error:
            raise RequestRefused(
                f"The columns do not fit contract {self.version}: {_cut(error)}.",
                code="invalid_input",
            ) from None
        rows = [msgspec.structs.astuple(struct) for struct in structs]
        return rows if self._plain else [self._whole(row) for row in rows]

    def _quotes(self, rows: list[Row]) -> int:
        """Least quotation marks of a body with these rows.

        So many are there when no key comes twice, nothing is escaped and no null is written out;
        a body with more is looked at again, slowly.
        """
        marks = 2 + self._all_marks * len(rows)
        for row in rows:
            for place in self._nulls:
                if row[place] is None:
                    marks -= self._marks[place]
        return marks

    def _whole(self, row: Row) -> Row:
        whole = list(self._filled)
        for place, value in zip(self._given, row, strict=True):
            whole[place] = value
        return tuple(whole)

    def schema(self) -> dict[str, Any]:
        """JSON Schema (2020-12) of the body, its parts under `$defs`."""
        (ref,), parts = msgspec.json.schema_components(
            [self.envelope], ref_template="#/$defs/{name}"
        )
        return {**ref, "$defs": parts}


def _cut(error: Exception) -> str:
    """What is wrong, without the whole of a value that it quotes; where it is comes last."""
    told = str(error)
    return told if len(told) <= TOLD_MAX else f"{told[: TOLD_MAX // 2]}…{told[-TOLD_MAX // 2 :]}"


def refuse_repeats(body: bytes) -> None:
    """Refuse a body in which an object has a key twice: which value counts is anybody's guess.

    Raises:
        RequestRefused: There is one.
    """
    import json

    def pairs(found: list[tuple[str, Any]]) -> None:
        keys = [key for key, _ in found]
        if len(set(keys)) != len(keys):
            twice = next(key for key in keys if keys.count(key) > 1)
            raise RequestRefused(
                f"The key '{twice[:100]}' comes twice in one object.", code="malformed_body"
            )

    json.loads(body, object_pairs_hook=pairs)


def input_contracts(
    declaration: ModelDeclaration,
    features: FeatureSchema,
    needed: Mapping[str, str],
) -> dict[int, InputContract]:
    """Every contract that the declaration keeps, by version.

    Args:
        declaration: The model.
        features: The model's inputs.
        needed: What the features need from the caller → its kind (`OnlinePlan.kinds`).
    """
    table = declaration.source.tables[declaration.source.rows]
    serving, source = declaration.serving, declaration.source
    optional = set(serving.contract.optional)
    ours = [f for f in features.fields if f.origin == "request"]
    numerical = [f.name for f in ours if f.kind is FieldKind.NUMERICAL]
    categorical = [f.name for f in ours if f.kind is FieldKind.CATEGORICAL]
    texts = [f.name for f in ours if f.kind is FieldKind.TEXT]
    vectors = [f.name for f in ours if f.kind is FieldKind.VECTOR]
    taken = (*numerical, *categorical, *texts, *vectors)
    keys = [name for name in needed if name not in (*taken, source.prediction_time, source.row_id)]
    inputs = []
    for name in (*taken, *keys):
        column = table.columns.get(name)
        kind = KINDS[column.type] if column else needed[name]
        # What the model takes as a number is sent as one: 1 and 1.0 are the same value.
        if name in numerical and kind == "int":
            kind = "float"
        nullable = (column.nullable if column else False) or name in optional
        inputs.append(Input(name, kind, nullable, name in optional, column))
    inputs.append(Input(source.prediction_time, "timestamp", False, True))
    inputs.append(Input(source.row_id, KINDS[table.columns[source.row_id].type], False, True))
    shared: dict[str, Any] = {
        "numerical": len(numerical),
        "categorical": len(categorical),
        "texts": len(texts),
        "vectors": len(vectors),
        "moment": source.prediction_time,
        "row_id": source.row_id,
    }
    newest = serving.contract.version
    contracts = {newest: InputContract(inputs, version=newest, **shared)}
    for earlier in serving.contract.earlier:
        contracts[earlier.version] = InputContract(
            inputs, version=earlier.version, earlier=earlier, **shared
        )
    return contracts
