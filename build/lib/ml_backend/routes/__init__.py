"""The HTTP contract, one file a family of routes; no decisions here."""
