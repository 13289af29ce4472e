"""One family per file; each registers itself in the catalog."""
