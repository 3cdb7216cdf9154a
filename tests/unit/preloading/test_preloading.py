import sys
import textwrap

import pytest

from aios_platform.preloading import preload


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module of this name and source, importable in this test only."""
    monkeypatch.syspath_prepend(tmp_path)
    written = []

    def write(name, source):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
        written.append(name)

    yield write
    for name in written:
        sys.modules.pop(name, None)


def test_modules_are_imported_in_order(module):
    module("preloaded_first", "import sys; sys.preloading_order = ['first']")
    module("preloaded_second", "import sys; sys.preloading_order.append('second')")
    preload("preloaded_first", "preloaded_second").join(10)
    assert sys.preloading_order == ["first", "second"]  # type: ignore[attr-defined]
    assert {"preloaded_first", "preloaded_second"} <= sys.modules.keys()


def test_a_module_that_cannot_be_imported_is_left_to_whoever_needs_it(module):
    module("preloaded_broken", "raise RuntimeError('its own message')")
    preload("preloaded_broken", "preloaded_never").join(10)
    with pytest.raises(RuntimeError, match="its own message"):
        __import__("preloaded_broken")


def test_an_import_meanwhile_waits_for_the_whole_module(module):
    module("preloaded_slow", "import time; time.sleep(0.3); complete = True")
    thread = preload("preloaded_slow")
    import preloaded_slow

    assert preloaded_slow.complete
    thread.join(10)
