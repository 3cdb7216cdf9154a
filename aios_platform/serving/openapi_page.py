"""The OpenAPI document as a page that needs no script and no other server."""

import json
from html import escape
from typing import Any

STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;
color:#1c2430;background:#fff}
h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2.2rem;border-top:1px solid #dde3ea;
padding-top:1.2rem}
code,pre{font:13px/1.45 ui-monospace,monospace;background:#f4f6f8;border-radius:4px}
code{padding:.1em .3em}pre{padding:.8rem;overflow:auto}
table{border-collapse:collapse;width:100%;font-size:14px}
td,th{text-align:left;padding:.35rem .6rem;border-bottom:1px solid #e6eaef;vertical-align:top}
.m{display:inline-block;font:600 12px ui-monospace,monospace;padding:.1rem .45rem;
border-radius:3px;color:#fff;background:#2563a8;margin-right:.5rem}
p.d{color:#4a5665}
"""


def page(document: dict[str, Any]) -> bytes:
    """The page.

    Args:
        document: As `openapi.document` gives it.
    """
    schemas = document["components"]["schemas"]
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width,initial-scale=1'>",
        f"<title>{escape(document['info']['title'])}</title><style>{STYLE}</style>",
        f"<h1>{escape(document['info']['title'])} {escape(document['info']['version'])}</h1>",
        f"<p class=d>{escape(document['info']['description'])} The same for programs: ",
        "<a href=openapi.json>openapi.json</a> (OpenAPI 3.1). Existing clients of the Open ",
        "Inference Protocol find every model under <code>/v2/models/{model}</code>.</p>",
    ]
    plain = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if method == "get":
                plain.append(
                    f"<tr><td><code>{escape(path)}</code><td>{escape(operation['summary'])}"
                )
            else:
                parts.append(_operation(path, method, operation, schemas))
    parts.append("<h2>To look at</h2><table><tr><th>GET<th>" + "".join(plain) + "</table></html>")
    return "".join(parts).encode()


def _operation(path: str, method: str, operation: dict[str, Any], schemas: dict[str, Any]) -> str:
    text = [
        f"<h2><span class=m>{method.upper()}</span><code>{escape(path)}</code></h2>",
        f"<p>{escape(operation.get('summary', ''))}</p>",
    ]
    if operation.get("description"):
        text.append(f"<p class=d>{escape(operation['description'])}</p>")
    model = path.removeprefix("/v1/models/").partition(":")[0]
    row = schemas.get(f"{model}.Row") if method == "post" else None
    if row is not None:
        text.append(_inputs(row))
        example = json.dumps({"instance": _example(row)}, indent=2)
        text.append(
            "<pre>"
            + escape(
                f"curl -s http://127.0.0.1:8080{path} \\\n"
                f"  -H 'content-type: application/json' -d '{example}'"
            )
            + "</pre>"
        )
    headers = operation.get("parameters", [])
    if headers:
        rows = "".join(
            f"<tr><td><code>{escape(h['name'])}</code><td>{escape(h['description'])}"
            for h in headers
        )
        text.append(f"<table><tr><th>header<th>meaning{rows}</table>")
    codes = {c: r["description"] for c, r in operation["responses"].items() if c != "200"}
    if codes:
        rows = "".join(f"<tr><td>{code}<td>{escape(why)}" for code, why in codes.items())
        text.append(f"<table><tr><th>status<th>problem{rows}</table>")
    return "".join(text)


def _inputs(row: dict[str, Any]) -> str:
    required = set(row.get("required", ()))
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code><td>{escape(_kind(schema))}"
        f"<td>{'required' if name in required else 'optional'}"
        for name, schema in row["properties"].items()
    )
    return f"<table><tr><th>input<th>type<th>{rows}</table>"


def _kind(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_kind(part) for part in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(str(value) for value in schema["enum"])
    kind = str(schema.get("format") or schema.get("type", ""))
    low, high = schema.get("minimum"), schema.get("maximum")
    if kind in ("number", "integer") and high is not None and abs(high) < 1e18:
        return f"{kind}, {low:g} to {high:g}"
    return kind


def _example(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _value(schema)
        for name, schema in row["properties"].items()
        if name in row.get("required", ())
    }


def _value(schema: dict[str, Any]) -> Any:
    if "anyOf" in schema:
        return _value(schema["anyOf"][0])
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type")
    if kind in ("number", "integer"):
        low = schema.get("minimum", 0)
        return low if abs(low) < 1e18 else 0
    return {"boolean": False}.get(str(kind), "text")
