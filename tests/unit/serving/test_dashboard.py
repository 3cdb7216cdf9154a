"""The dashboard shows what the gateway exposes, and what starts it fits together."""

import json
import re
from itertools import combinations

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from aios_platform.serving import metrics
from aios_platform.settings import PROJECT_ROOT

DOCKER = PROJECT_ROOT / "docker"
DASHBOARD = json.loads((DOCKER / "grafana" / "gateway.json").read_text())
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())
SERIES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


def exposed() -> dict[str, set[str]]:
    """Series to their labels, as `/metrics` has them."""
    found = {}
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase):
            [family] = metric.collect()
            for suffix in SERIES[family.type]:
                bucket = {"le"} if suffix == "_bucket" else set()
                found[family.name + suffix] = {*metric._labelnames, *bucket}
    return found


def queries() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]


def test_every_query_is_about_series_and_labels_that_there_are():
    series = exposed()
    for query in queries():
        named = set(re.findall(r"\baios_\w+", query))
        assert named
        assert named <= set(series), query
        labels = set(re.findall(r"(\w+)=~?\"", query))
        for grouped in re.findall(r"\bby \(([^)]*)\)", query):
            labels |= set(re.split(r",\s*", grouped))
        assert all(labels <= series[name] | {"le"} for name in named), query


def test_nothing_is_exposed_that_nobody_sees():
    seen = " ".join(queries())
    families = {re.sub("_(total|bucket|sum|count)$", "", name) for name in exposed()}
    assert not {family for family in families if not re.search(rf"\b{family}", seen)}


def test_panels_are_told_apart_and_do_not_overlap():
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [panel["gridPos"] for panel in panels]
    for one, other in combinations(places, 2):
        apart = (
            one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        )  # fmt: skip
        assert apart, (one, other)
    assert all(place["x"] + place["w"] <= 24 for place in places)


def test_every_panel_says_what_it_shows_and_asks_the_source_that_is_chosen():
    variables = {each["name"] for each in DASHBOARD["templating"]["list"]}
    for panel in DASHBOARD["panels"]:
        if panel["type"] != "row":
            assert panel["description"].endswith(".")
            assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD["panels"])))
    assert used - {"__rate_interval"} == variables


@pytest.mark.parametrize("part", ["prometheus", "grafana"])
def test_what_is_mounted_is_there(part):
    mounted = [
        volume.split(":") for volume in COMPOSE["services"][part]["volumes"] if volume[0] == "."
    ]
    assert mounted
    for source, _, mode in mounted:
        assert (DOCKER / source).exists()
        assert mode == "ro"


def test_prometheus_asks_the_gateway_and_grafana_asks_prometheus():
    command = COMPOSE["services"]["gateway"]["command"]
    port = command[command.index("--port") + 1]
    [job] = yaml.safe_load((DOCKER / "prometheus.yml").read_text())["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"gateway:{port}"]}]
    provisioning = DOCKER / "grafana" / "provisioning"
    [source] = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())[
        "datasources"
    ]
    assert source["url"] == "http://prometheus:9090"
    [folder] = yaml.safe_load((provisioning / "dashboards" / "gateway.yaml").read_text())[
        "providers"
    ]
    targets = [v.split(":")[1] for v in COMPOSE["services"]["grafana"]["volumes"]]
    assert f"{folder['options']['path']}/gateway.json" in targets
