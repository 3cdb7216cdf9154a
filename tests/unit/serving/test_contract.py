"""Requests by their contract: what is taken is what was sent, and nothing else is taken."""

import json
import math
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from aios_platform.contracts.serving import EarlierContract
from aios_platform.errors import DeclarationError, RequestRefused
from aios_platform.serving.contract import input_contracts
from aios_platform.serving.inputs import TEXT_MAX
from tests.served_models import FEATURES, ROW, declaration

EARLIER = {
    "version": 3,
    "optional": ["size"],
    "earlier": [
        {"version": 1, "rename": {"mass": "weight", "Colour": "colour"}, "defaults": {"size": 7}},
        {"version": 2, "defaults": {"weight": None}},
    ],
}
NAMES = ("size", "weight", "colour", "at", "id")


def contracts(needed=(), **contract):
    return input_contracts(declaration(contract=contract), FEATURES, dict(needed))


NEWEST = contracts()[1]
sizes = st.floats(0, 1000)
weights = st.none() | st.floats(-3e38, 3e38) | st.integers(-(2**53), 2**53)
moments = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.timezones()).map(
    lambda moment: moment.replace(microsecond=moment.microsecond, fold=0).astimezone(UTC)
)
rows = st.fixed_dictionaries(
    {"size": sizes, "weight": weights, "colour": st.sampled_from(["red", "blue"])},
    optional={
        "at": moments.map(datetime.isoformat) | st.none(),
        "id": st.text(st.characters(codec="utf-8"), max_size=20) | st.none(),
    },
)


@given(st.lists(rows, min_size=1, max_size=5), st.booleans(), st.booleans())
@example([{**ROW, "id": 'quoted "x" \\ \u2028 \0'}], False, False)
def test_what_is_taken_is_what_was_sent(sent, ascii_only, single):
    content = {"instance": sent[0]} if single else {"instances": sent}
    body = json.dumps(content, ensure_ascii=ascii_only).encode()
    taken, alone = NEWEST.decode(body)
    assert alone is single
    for row, values in zip(sent[:1] if single else sent, taken, strict=True):
        found = dict(zip(NAMES, values, strict=True))
        moment = found.pop("at")
        assert moment == (datetime.fromisoformat(row["at"]) if row.get("at") else None)
        assert found == {name: row.get(name) for name in found}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*NAMES, "instance", "instances"]) | st.text(), inner)
    ),
    max_leaves=10,
)


@given(st.binary() | json_values.map(lambda value: json.dumps(value).encode()))
@example(b'{"instance":' + b"[" * 100_000)
@example(b'{"instance":{"size":1,"weight":1,"colour":"\xff"}}')
@example(b'{"instance":{"size":' + b"9" * 5000 + b',"weight":1,"colour":"red"}}')
@example(b'{"instance":{"size":1e-9999,"weight":-0,"colour":"\\u0072ed"}}')
def test_everything_else_is_refused_in_one_way(body):
    try:
        taken, _ = NEWEST.decode(body)
    except RequestRefused as refused:
        code = refused.code
    else:
        code = None
    assert code in (None, "malformed_body", "invalid_input")
    if code is not None:
        return
    content = json.loads(body)
    sent = content.get("instances") or [content["instance"]]
    assert [row["size"] for row in sent] == [row[0] for row in taken]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"size": None}, "invalid_input"),
        ({"size": -0.001}, "invalid_input"),
        ({"size": 1000.001}, "invalid_input"),
        ({"size": True}, "invalid_input"),
        ({"size": "3.5"}, "invalid_input"),
        ({"weight": 3.5e38}, "invalid_input"),
        ({"weight": math.inf}, "malformed_body"),
        ({"weight": math.nan}, "malformed_body"),
        ({"colour": "green"}, "invalid_input"),
        ({"colour": None}, "invalid_input"),
        ({"at": "2024-01-01T00:00:00"}, "invalid_input"),
        ({"at": 1704067200}, "invalid_input"),
        ({"id": "x" * (TEXT_MAX + 1)}, "invalid_input"),
        ({"shape": "round"}, "invalid_input"),
    ],
)
def test_values_outside_the_declaration_are_refused(change, code):
    body = json.dumps({"instance": {**ROW, **change}}).encode()
    with pytest.raises(RequestRefused) as refused:
        NEWEST.decode(body)
    assert refused.value.code == code


@pytest.mark.parametrize(
    "body",
    [
        '{"instance":{"size":1,"weight":1,"colour":"red","size":2}}',
        '{"instance":{"size":1,"weight":null,"weight":1,"colour":"red"}}',
        '{"instance":{"size":1,"weight":1,"weight":null,"colour":"red"}}',
        '{"instance":{"size":1,"weight":1,"colour":"red","c\\u006flour":"blue"}}',
        '{"instance":{"size":1,"weight":1,"colour":"red","at":null,"at":null}}',
    ],
)
def test_a_key_that_comes_twice_is_refused(body):
    with pytest.raises(RequestRefused) as refused:
        NEWEST.decode(body.encode())
    assert refused.value.code == "malformed_body"


def test_earlier_contracts_are_taken_as_the_newest():
    found = contracts(**EARLIER)
    assert sorted(found) == [1, 2, 3]
    first, _ = found[1].decode(b'{"instance":{"mass":2,"Colour":"blue","id":"a"}}')
    assert first == [(7.0, 2.0, "blue", None, "a")]
    second, _ = found[2].decode(b'{"instances":[{"size":1,"colour":"red"}]}')
    assert second == [(1.0, None, "red", None, None)]
    optional, _ = found[3].decode(b'{"instance":{"weight":2,"colour":"blue"}}')
    assert optional == [(None, 2.0, "blue", None, None)]
    for version, body in ((1, b'{"weight":2,"Colour":"blue"}'), (2, b'{"weight":2}')):
        with pytest.raises(RequestRefused):
            found[version].decode(b'{"instance":%s}' % body)


@pytest.mark.parametrize(
    ("earlier", "why"),
    [
        ({"rename": {"weight": "size"}}, "one name"),
        ({"defaults": {"size": "large"}}, "'size' a default"),
        ({"defaults": {"size": 1001}}, "'size' a default"),
        ({"defaults": {"colour": "green"}}, "'colour' a default"),
        ({"defaults": {"colour": None}}, "'colour' a default"),
        ({"defaults": {"place": 1.5}}, "'place' a default"),
    ],
)
def test_an_earlier_contract_that_cannot_be_is_told(earlier, why):
    declared = declaration(contract={"version": 2}).model_copy(deep=True)
    kept = declared.serving.contract.model_copy(
        update={"earlier": (EarlierContract(version=1, **earlier),)}
    )
    changed = declared.model_copy(
        update={"serving": declared.serving.model_copy(update={"contract": kept})}
    )
    with pytest.raises(DeclarationError, match=why):
        input_contracts(changed, FEATURES, {"place": "int"})


def test_a_default_is_a_value_of_its_input():
    declared = declaration(contract={"version": 2, "earlier": [{"version": 1}]})
    [earlier] = declared.serving.contract.earlier
    kept = declared.serving.contract.model_copy(
        update={"earlier": (earlier.model_copy(update={"defaults": {"place": 4.0}}),)}
    )
    changed = declared.model_copy(
        update={"serving": declared.serving.model_copy(update={"contract": kept})}
    )
    found = input_contracts(changed, FEATURES, {"place": "int"})[1]
    [row], _ = found.decode(json.dumps({"instance": ROW}).encode())
    # An entity key is looked up by its very value.
    assert (row[3], type(row[3])) == (4, int)


def test_names_of_an_earlier_contract_are_identifiers():
    with pytest.raises(ValidationError, match="pattern"):
        declaration(contract={"version": 2, "earlier": [{"version": 1, "rename": {"a-b": "size"}}]})
