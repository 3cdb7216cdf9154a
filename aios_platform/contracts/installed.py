"""Names in a declaration that stand for parts of installed packages."""

from aios_platform.contracts.record import nearest
from aios_platform.extensions import Kind, installed


def check_installed(kind: Kind, name: str) -> None:
    """Check that an installed package adds a part of this name; nothing is imported.

    Raises:
        ValueError: None does.
    """
    known = installed(kind)
    if name not in known:
        raise ValueError(f"no installed package adds '{name}' to {kind}. {nearest(name, known)}")
