"""Importing a heavy library while something else works outside the interpreter's lock."""

import importlib
import logging
import threading

logger = logging.getLogger(__name__)

_one_at_a_time = threading.Lock()


def preload(*modules: str) -> threading.Thread:
    """Import modules in the background, one after the other.

    Worth it only beside work that releases the interpreter's lock for long stretches (a query, a
    join, a hash); beside plain Python it delays both. Whoever imports such a module meanwhile
    waits for it, as for any import in two threads. A module that cannot be imported is left to
    whoever needs it to say so.

    Args:
        modules: Names of modules, in the order they will be needed.

    Returns:
        The thread, for those who want to wait.
    """

    def load() -> None:
        with _one_at_a_time:
            for module in modules:
                try:
                    importlib.import_module(module)
                except Exception as error:
                    logger.debug("%s cannot be preloaded: %s", module, error)
                    return

    # Not a daemon: an interpreter that ends in the middle of an import may crash.
    thread = threading.Thread(target=load, name="preload", daemon=False)
    thread.start()
    return thread
