"""The summary of a replay in a terminal."""

from hypothesis import HealthCheck, given, settings

from aios_platform.replay.summary import WIDTH, replay_summary
from tests.unit.replay.records import REPLAYS, YEAR, live_window, replay, window


def test_one_line_a_window_with_the_outcome_the_totals_and_the_page():
    shown = replay_summary(replay(), "/tmp/replay.html")
    rows = [line for line in shown.splitlines() if line.startswith("│ 2013-")]
    assert len(rows) == len(YEAR)
    assert all(len(line.rstrip()) <= WIDTH for line in shown.splitlines())
    row = next(line for line in rows if "2013-05" in line)
    for expected in ("v3", "0.7796 [0.7736, 0.7856]", "0.7763", "0.7683", "35%", "hold: healthy"):
        assert expected in row
    flat = " ".join(shown.split())
    assert "From 2013-01 to 2013-08 the platform trained 3 times" in flat
    assert "8 months, 31 runs in 4 min 22 s" in flat
    assert "0.7929 afterwards" in flat
    assert "v1 refused" in flat
    assert "fault" in flat
    assert shown.endswith("Report: /tmp/replay.html\n")


def test_a_version_that_was_live_is_named_where_its_labels_allow_no_figure():
    (row,) = (
        line
        for line in replay_summary(
            replay((window("2013-05", unmeasured="3"),)), "page"
        ).splitlines()
        if line.startswith("│ 2013-")
    )
    assert "│ v3 " in row
    assert "not measurable" in row


def test_what_comes_from_data_neither_styles_nor_steers_the_terminal():
    record = replay((live_window("[red]2013-05[/red]\x1b[2J"),), metric="[bold]m")
    shown = replay_summary(record, "page")
    assert "[red]2013-05[/red]" in shown
    assert "[bold]m" in shown
    assert "\x1b" not in shown


def test_equal_replays_give_equal_summaries():
    assert replay_summary(replay(), "p") == replay_summary(replay(), "p")


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(REPLAYS)
def test_any_replay_has_a_summary(record):
    assert replay_summary(record, "page").endswith("Report: page\n")
