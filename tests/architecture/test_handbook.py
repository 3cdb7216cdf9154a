"""The handbook builds: every page is in its place, and no link or anchor leads nowhere."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def build(folder: Path, site: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "mkdocs", "build", "--strict",
         "--config-file", str(folder / "mkdocs.yml"), "--site-dir", str(site)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.fixture
def copy(tmp_path):
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    return tmp_path


def test_every_page_is_built(tmp_path):
    done = build(ROOT, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "index.html").exists()
    for page in (ROOT / "docs").rglob("*.md"):
        place = page.relative_to(ROOT / "docs").with_suffix("")
        assert page.name == "index.md" or (tmp_path / place / "index.html").exists(), page


@pytest.mark.parametrize(
    "broken", ["[x](no_such_page.md)", "[x](training.md#no-such-anchor)"], ids=["page", "anchor"]
)
def test_a_link_that_leads_nowhere_is_an_error(copy, broken):
    page = copy / "docs/index.md"
    page.write_text(page.read_text() + f"\n{broken}\n")
    done = build(copy, copy / "site")
    assert done.returncode != 0
    assert "index.md" in done.stdout + done.stderr
