"""One file a command; together the composition root of the command line."""
