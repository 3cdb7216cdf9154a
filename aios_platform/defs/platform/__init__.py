"""Resources that every declared model shares."""
