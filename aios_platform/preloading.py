"""What importing heavy libraries costs, and how a process pays less for it."""

import atexit
import gc
import importlib
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

logger = logging.getLogger(__name__)

# Objects made since the last collection before the next; Python's own number is 700 or 2,000.
YOUNG, MIDDLE, OLD = 100_000, 20, 100


def collect_rarely() -> None:
    """Let the garbage collector look less often, and no more when the process ends.

    Importing the libraries makes millions of objects that stay, and going through them again and
    again takes a seventh of the time that the imports take. Garbage without cycles is freed at
    once in any case. At its end Python would go through all of them once more and free them one by
    one, which takes three seconds; the operating system takes them back at once.
    """
    gc.set_threshold(YOUNG, MIDDLE, OLD)
    _leave_at_the_end()


@cache
def _leave_at_the_end() -> None:
    # Registered early, so that it runs after what the libraries have registered.
    atexit.register(_leave)


def _leave() -> None:
    gc.freeze()
    # DuckDB's bindings would tell on stderr of every object that nobody freed.
    with suppress(OSError, ValueError, AttributeError):
        sys.stderr.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)


@cache
def check_constructors_only() -> None:
    """Let Feast's classes check the types of their constructors' arguments, and no more.

    Feast decorates its classes with typeguard's `typechecked`, which parses and compiles a whole
    module again for each method: two seconds of an import that otherwise takes half a second.
    What people write, in their feature files, goes through constructors. Must be called before
    Feast is imported; other packages' classes are checked as ever.
    """
    try:
        import typeguard
    except ImportError:
        return  # It is Feast's dependency, not ours.

    checked = typeguard.typechecked

    def typechecked(target: Any = None, **options: Any) -> Any:
        if not isinstance(target, type) or target.__module__.partition(".")[0] != "feast":
            return checked(target, **options)
        constructor = vars(target).get("__init__")
        # A constructor that is inherited from elsewhere, or wraps another, is as it was.
        if constructor and getattr(constructor, "__module__", None) == target.__module__:
            type.__setattr__(target, "__init__", checked(constructor))
        return target

    typeguard.typechecked = typechecked


@contextmanager
def preloading(*modules: str) -> Iterator[None]:
    """Import modules in the background while the block runs; at its end they are there.

    Worth it only around work that releases the interpreter's lock for long stretches (a query, a
    join, a hash); around plain Python it delays both. The block must not import anything itself
    that these modules import, too: two threads that enter a package with circular imports by
    different doors get it half-initialised. Import what it needs before.

    A module that cannot be imported is left to whoever needs it to say so.

    Args:
        modules: Names of modules, in the order they will be needed.
    """

    def load() -> None:
        # Some libraries change the filters of the whole process when they are imported.
        with warnings.catch_warnings():
            for module in modules:
                try:
                    importlib.import_module(module)
                except Exception as error:
                    logger.debug("%s cannot be preloaded: %s", module, error)
                    return

    thread = threading.Thread(target=load, name="preloading")
    thread.start()
    try:
        yield
    finally:
        thread.join()
