"""The page of a replay: well-formed, safe, whole, and true to the record."""

import base64
import hashlib
import re
from datetime import date, timedelta
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings

from aios_platform.contracts.replays import Gain
from aios_platform.replay.page import replay_page
from aios_platform.replay.story import happened
from aios_platform.replay.texts import number, outcome, pace, places, seconds
from tests.unit.replay.records import (
    FIGURES,
    REPLAYS,
    YEAR,
    gain,
    live_window,
    replay,
    training,
    window,
)

VOID = {"meta", "br", "wbr"}
HOSTILE = "</style></title><script>alert(1)</script><img src=x onerror='x'>&\"\u202e\x00"


class Page(HTMLParser):
    """Reads a page; refuses what is not closed, and what could load or run anything."""

    def __init__(self, content):
        super().__init__(convert_charrefs=True)
        self.open, self.ids, self.words, self.tags, self.labels = [], [], [], [], []
        self.feed(content.decode())
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self._look(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self._look(tag, attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    def _look(self, tag, attrs):
        assert tag not in {"script", "link", "img", "iframe", "object", "embed", "base", "a", "use"}
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names))
        assert not [n for n in names if n in {"src", "href", "style"} or n.startswith("on")]
        given = dict(attrs)
        self.tags.append((tag, given))
        self.ids += [given["id"]] if "id" in given else []
        self.labels += given.get("aria-labelledby", "").split()

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def read(record):
    content = replay_page(record)
    page = Page(content)
    assert len(page.ids) == len(set(page.ids))
    assert set(page.labels) <= set(page.ids)
    for drawing in re.findall(r"<svg.*?</svg>", content.decode(), re.S):
        ElementTree.fromstring(drawing)  # XML: stricter than HTML is.
    return page


def test_a_page_shows_what_the_record_says():
    text = read(replay()).text
    assert outcome(replay()).replace("\xa0", " ") in text
    for expected in (
        "Will the flight arrive more than 15 minutes late?",
        "2013-05", "28,243 rows", "27,448 labelled", "32 % positive",
        "0.7796", "0.7736 to 0.7856", "estimate 0.8034", "too high",
        "0.7929", "measured afterwards, by version 2", "no champion yet",
        "no data: it did not come",
        "v1 refused", "ece is 0.0530 (0.0484 to 0.0576); at most 0.05 is required.",
        "v3 went live", "better on the exam", "no better on the exam", "the first champion",
        "tail_slack", "2 more", "data fault: flights: 40% of the values are missing.",
        "alert: candidate: version 1 was refused", "Ledger row 31.",
        "4 min 22 s", "31 runs", "9f4c" * 16, "31ab" * 16, "aios ledger show flight_delay",
    ):  # fmt: skip
        assert expected in text


def test_a_version_that_was_live_is_named_where_its_labels_allow_no_figure():
    text = read(replay((window("2013-05", unmeasured="3"),))).text
    assert "v3" in text
    assert "not measurable" in text
    assert "no champion yet" not in text


def test_equal_replays_give_equal_bytes():
    assert replay_page(replay()) == replay_page(replay())


def test_every_header_has_a_scope_and_every_picture_is_described():
    page = read(replay())
    assert all(given.get("scope") in ("col", "row") for tag, given in page.tags if tag == "th")
    pictures = [given for tag, given in page.tags if tag == "svg" and "aria-hidden" not in given]
    assert len(pictures) == 3
    assert all(given["role"] == "img" and given["aria-labelledby"] for given in pictures)


def test_the_policy_of_the_page_allows_its_style_sheet_and_nothing_else():
    content = replay_page(replay()).decode()
    style = re.search(r"<style>(.*?)</style>", content, re.S)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'sha256-{digest}'" in content
    assert "url(" not in style
    assert "@import" not in style
    assert "http:" not in content
    assert "https:" not in content


def test_what_comes_from_data_is_text():
    hostile = replay(
        (
            window(HOSTILE, missing=HOSTILE),
            live_window(
                HOSTILE,
                faults=(HOSTILE,),
                alerts=(HOSTILE, HOSTILE * 9),
                trainings=(
                    training(HOSTILE, cause=HOSTILE, reasons=(HOSTILE,), exam=(HOSTILE,)),
                    training(HOSTILE, promoted=False, verdict=HOSTILE),
                ),
            ),
        ),
        model=HOSTILE,
        description=HOSTILE,
        metric=HOSTILE,
        first=HOSTILE,
        digest=HOSTILE,
    )
    text = read(hostile).text
    assert text.count("<script>alert(1)</script>") > 10
    assert "\u202e" not in text
    assert "\x00" not in text


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(REPLAYS)
def test_any_replay_has_a_page(record):
    read(record)


@given(FIGURES)
def test_figures_are_short_and_never_a_negative_nothing(figure):
    shown = number(figure.value)
    assert len(shown) < 20
    assert not re.fullmatch(r"\N{MINUS SIGN}[0.]+", shown)


def test_sixty_weeks_stay_small_and_readable():
    keys = [(date(2024, 1, 1) + timedelta(days=7 * n)).isoformat() for n in range(60)]
    weeks = [live_window(key, trainings=(training(str(n)),)) for n, key in enumerate(keys)]
    record = replay(weeks, first=keys[0], last=keys[-1])
    assert "retrained every week" in read(record).text
    assert len(replay_page(record)) < 300_000


def test_without_windows_or_without_a_champion_nothing_is_drawn_that_is_not_there():
    for record, said in (
        (replay((), against_never=None, against_every=None), "there was no window to replay"),
        (replay(YEAR[:3], against_never=None, against_every=None), "no version passed the gate"),
    ):
        page = read(record)
        assert said in page.text
        assert not [tag for tag, given in page.tags if tag == "svg" and "role" in given]


@pytest.mark.parametrize(
    ("never", "said"),
    [
        (gain(0.0069), "was 0.0069 ROC AUC better than one that was never retrained (95 % interval "
                       "0.0049 to 0.0089)"),
        (gain(-0.0069), "was 0.0069 ROC AUC worse than one that was never retrained (95 % interval "
                        "0.0049 to 0.0089)"),
        (gain(0.001), "was no different from one that was never retrained, as far as these rows "
                      "can tell (+0.0010 ROC AUC, 95 % interval \N{MINUS SIGN}0.0010 to 0.0030)"),
        (Gain(value=0, low=0, high=0, standard_error=0), "as good as one that was never retrained"),
    ],
)  # fmt: skip
def test_the_headline_says_what_the_interval_allows(never, said):
    record = replay(against_never=never)
    assert said in outcome(record).replace("\xa0", " ")
    assert said in read(record).text
    assert "0.0011 ROC AUC worse than one retrained every month, which trained 6 times" in (
        outcome(record)
    )


@pytest.mark.parametrize(
    ("first", "last", "count", "said"),
    [
        ("2013-01", "2013-12", 0, "In 2013 the platform did not train again after"),
        ("2013-02", "2013-12", 1, "From 2013-02 to 2013-12 the platform trained once after"),
        ("2013-02", "2013-02", 3, "In 2013-02 the platform trained 3 times after"),
    ],
)
def test_the_headline_counts_and_dates(first, last, count, said):
    assert outcome(replay(first=first, last=last, trainings=count)).startswith(said)


def test_the_story_tells_refusals_trainings_and_trouble():
    told = " ".join(happened(replay()))
    for expected in (
        "After 2013-03, version 1 was refused by the gate: ece is 0.0530",
        "The first version to go live was version 2, after 2013-04.",
        "2 trainings followed: 1 went live, better on the exam than the version before; 1 went "
        "live, no better but within what the gate tolerates.",
        "held in 0 of 3 months",
        "2 months brought no data.",
        "Data faults were found in 1 month, and 1 alert was sent.",
    ):
        assert expected in told


def test_the_pace_is_read_from_the_keys():
    for keys, expected in (
        (["2013-01", "2013-02"], "month"),
        (["2013-01-07", "2013-01-14"], "week"),
        (["2013-01-07", "2013-01-08"], "day"),
        (["2013-01-07T01", "2013-01-07T02"], "hour"),
        (["2013-01-07"], "window"),
        (["2013-13", "x"], "window"),
        ([], "window"),
    ):
        assert pace([window(key) for key in keys]) == expected


def test_figures_have_the_digits_that_their_size_asks_for():
    assert places(replay()) == 4
    assert number(0.00004) == "0.00004"
    assert number(-12345.678, 1) == "\N{MINUS SIGN}12,345.7"
    assert [seconds(value).replace("\xa0", " ") for value in (0, 59.97, 3599.7, 7322)] == [
        "0 s", "1 min 0 s", "1 h 0 min", "2 h 2 min",
    ]  # fmt: skip
