"""A copy of everything the platform keeps, and an installation made from it (docs/backup.md)."""
