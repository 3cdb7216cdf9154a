"""Bringing Feast's registry and online tables in step with the files of the Feast repository.

`feast apply` does the same from the command line, but needs the repository as the working
folder of the process.
"""

import contextlib
import hashlib
import importlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aios_platform.errors import FeatureError
from aios_platform.features.store import quiet

if TYPE_CHECKING:
    from feast import FeatureStore

DIGEST_TAG = "aios_digest"

# Loading changes sys.path and sys.modules for a moment.
_loading = threading.Lock()


def apply_repository(store: "FeatureStore", repo: Path) -> bool:
    """Apply the repository's files, unless the registry has this very state of them already.

    Objects that left the files leave the registry. The digest of the files is kept as a tag of
    the project and written last, so that a killed apply is done again.

    Returns:
        Whether anything was applied.

    Raises:
        FeatureError: A file does not load, or an object in it is wrong.
    """
    from feast import Project
    from feast.errors import ProjectNotFoundException, ProjectObjectNotFoundException

    digest = repository_digest(repo)
    with contextlib.suppress(ProjectNotFoundException, ProjectObjectNotFoundException):
        known = store.registry.get_project(store.project, allow_cache=False)
        if known.tags.get(DIGEST_TAG) == digest:
            return False
    try:
        with quiet():
            objects = load_repository(repo)
            store.apply(objects, objects_to_delete=_gone(store, objects), partial=False)
            store.apply(Project(name=store.project, tags={DIGEST_TAG: digest}))
    except FeatureError:
        raise
    except Exception as error:
        raise FeatureError(
            f"The Feast repository {repo} cannot be applied: {error}",
            remedy="Correct the file; `aios feast plan` shows what would change.",
        ) from error
    return True


def repository_digest(repo: Path) -> str:
    """SHA-256 (hex) over the repository's Python and YAML files."""
    digest = hashlib.sha256()
    for path in [*_files(repo, "*.py"), *_files(repo, "*.yaml")]:
        content = path.read_bytes()
        digest.update(f"{path.relative_to(repo)}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def load_repository(repo: Path) -> list[Any]:
    """The Feast objects that the repository's Python files define.

    Raises:
        FeatureError: A file does not load, or two objects of a kind have the same name.
    """
    from feast import Entity, FeatureService
    from feast.base_feature_view import BaseFeatureView
    from feast.data_source import DataSource
    from feast.permissions.permission import Permission

    kinds = (Entity, FeatureService, BaseFeatureView, DataSource, Permission)
    found: dict[tuple[str, str], Any] = {}
    for module in _modules(repo):
        for thing in vars(module).values():
            if not isinstance(thing, kinds):
                continue
            key = (type(thing).__name__, thing.name)
            if found.setdefault(key, thing) is not thing:
                raise FeatureError(
                    f"{module.__file__} defines the {key[0]} '{key[1]}' a second time.",
                    remedy="Give it another name, or import the first.",
                )
    return list(found.values())


def _modules(repo: Path) -> Iterator[Any]:
    files = _files(repo, "*.py")
    names = [".".join(path.relative_to(repo).with_suffix("").parts) for path in files]
    with _loading:
        before = {name: sys.modules.pop(name) for name in names if name in sys.modules}
        sys.path.insert(0, str(repo))
        try:
            importlib.invalidate_caches()
            for path, name in zip(files, names, strict=True):
                try:
                    yield importlib.import_module(name)
                except Exception as error:
                    raise FeatureError(
                        f"{path} does not load: {type(error).__name__}: {error}",
                        remedy="Correct the file.",
                    ) from error
        finally:
            sys.path.remove(str(repo))
            for name in names:
                sys.modules.pop(name, None)
            sys.modules.update(before)


def _files(repo: Path, pattern: str) -> list[Path]:
    return [
        path
        for path in sorted(repo.rglob(pattern))
        if not any(part.startswith((".", "_")) for part in path.relative_to(repo).parts)
    ]


def _gone(store: "FeatureStore", objects: list[Any]) -> list[Any]:
    """Objects in the registry that the files no longer define."""
    names = {thing.name for thing in objects}
    sources = {s.name for thing in objects for s in [getattr(thing, "batch_source", None)] if s}
    registered: list[Any] = [
        *store.list_feature_services(),
        *store.list_on_demand_feature_views(),
        *store.list_batch_feature_views(),
        *store.list_entities(),
    ]
    gone = [thing for thing in registered if thing.name not in names]
    return gone + [s for s in store.list_data_sources() if s.name not in names | sources]
