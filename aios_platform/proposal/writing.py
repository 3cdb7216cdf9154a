"""Writing a proposed declaration where definitions are found."""

import tempfile
from pathlib import Path

from aios_platform.errors import DeclarationError
from aios_platform.proposal.proposal import Proposal, rendered


def write(proposal: Proposal, folder: Path) -> Path:
    """Write `<folder>/<name>/defs.yaml`, whole or not at all.

    Args:
        proposal: What to write.
        folder: Where models are declared.

    Returns:
        The file.

    Raises:
        DeclarationError: There is something of this name other than an empty folder, or the folder
            cannot be written.
    """
    name = proposal.declaration.name
    place = folder / name
    if place.exists() and not (place.is_dir() and not any(place.iterdir())):
        raise DeclarationError(
            f"There is a model '{name}' already: {place}.",
            remedy="Choose another name, or remove the folder first.",
        )
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".proposed-") as temporary:
            made = Path(temporary) / name
            made.mkdir()
            (made / "defs.yaml").write_text(rendered(proposal))
            made.replace(place)
    except OSError as error:
        raise DeclarationError(
            f"{place} cannot be written: {error.strerror or error}.",
            remedy="Run in a checkout of your own, in which the platform is installed editable.",
        ) from error
    return place / "defs.yaml"
