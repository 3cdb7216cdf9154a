"""Writes the secrets that compose.yaml names, where there are none: `make secrets`."""

import secrets
from pathlib import Path

FOLDER = Path(__file__).parent / "secrets"


def main() -> None:
    """Make a password, and the URL with it; neither is printed."""
    # The folder keeps others out; the files are read by the containers' users.
    FOLDER.mkdir(mode=0o700, exist_ok=True)
    password, url = FOLDER / "postgres_password", FOLDER / "aios_database_url"
    if not password.exists():
        password.write_text(secrets.token_urlsafe(32))
    url.write_text(f"postgresql://aios:{password.read_text()}@postgres:5432/postgres")
    for path in (password, url):
        path.chmod(0o444)
    print(f"{FOLDER} is complete.")


if __name__ == "__main__":
    main()
