import gc
import subprocess
import sys
import textwrap

import pytest

from aios_platform.preloading import collect_rarely, preloading


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
    with preloading("preloaded_first", "preloaded_second"):
        pass
    assert sys.preloading_order == ["first", "second"]  # type: ignore[attr-defined]
    assert {"preloaded_first", "preloaded_second"} <= sys.modules.keys()


def test_a_module_that_cannot_be_imported_is_left_to_whoever_needs_it(module):
    module("preloaded_broken", "raise RuntimeError('its own message')")
    with preloading("preloaded_broken", "preloaded_never"):
        pass
    with pytest.raises(RuntimeError, match="its own message"):
        __import__("preloaded_broken")


def test_the_block_runs_meanwhile_and_ends_with_the_module_whole(module):
    module("preloaded_slow", "import time; time.sleep(0.3); complete = True")
    with preloading("preloaded_slow"):
        assert not hasattr(sys.modules.get("preloaded_slow"), "complete")
    assert sys.modules["preloaded_slow"].complete


def test_an_error_in_the_block_is_the_callers(module):
    module("preloaded_fine", "import time; time.sleep(0.1); complete = True")
    with pytest.raises(ValueError, match="the block's own"), preloading("preloaded_fine"):
        raise ValueError("the block's own")
    assert sys.modules["preloaded_fine"].complete


def test_the_collector_looks_less_often_and_still_finds_cycles():
    before = gc.get_threshold()
    try:
        gc.set_threshold(700, 10, 10)
        collect_rarely()
        assert gc.get_threshold()[0] > 700
        assert gc.isenabled()
    finally:
        gc.set_threshold(*before)


def test_the_end_of_a_process_keeps_its_status_and_what_was_registered_for_it():
    code = (
        "import atexit, gc, sys\n"
        "from aios_platform.preloading import collect_rarely\n"
        "collect_rarely()\n"
        "import duckdb\n"
        "atexit.register(lambda: print('told at the end', file=sys.stderr))\n"
        "class Cycle:\n"
        "    def __init__(self): self.own = self\n"
        "    def __del__(self): print('freed')\n"
        "kept = Cycle()\n"
        "sys.exit(3)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "told at the end\n")


def test_feasts_constructors_check_their_arguments_and_nothing_else_is_compiled_again(tmp_path):
    code = """
        from aios_platform.preloading import check_constructors_only
        check_constructors_only()
        import typeguard
        from typeguard import _decorators
        compiled, instrument = [], _decorators.instrument
        def counted(f):
            compiled.append(f.__qualname__)
            return instrument(f)
        _decorators.instrument = counted
        from feast import Entity, FeatureView, Field
        assert compiled and {name.split(".")[-1] for name in compiled} == {"__init__"}, compiled
        @typeguard.typechecked
        class Theirs:
            def method(self, number: int): ...
        @typeguard.typechecked(forward_ref_policy=typeguard.ForwardRefPolicy.IGNORE)
        def function(number: int): ...
        for refused in [
            lambda: FeatureView(name=3, source=None),
            lambda: Field(name="a", dtype="Int32"),
            lambda: Entity(name="a", join_keys="key"),
            lambda: Theirs().method("1"),
            lambda: function("1"),
        ]:
            try:
                refused()
            except typeguard.TypeCheckError as error:
                print(str(error).splitlines()[0])
    """
    script = tmp_path / "script.py"  # typeguard needs the source of what it checks.
    script.write_text(textwrap.dedent(code))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        'argument "name" (int) is not an instance of str',
        'argument "dtype" (str) did not match any element in the union:',
        'argument "join_keys" (str) did not match any element in the union:',
        'argument "number" (str) is not an instance of int',
        'argument "number" (str) is not an instance of int',
    ]
