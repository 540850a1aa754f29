"""``cytoloop bench``: what has to be fast, measured beside the bar it has to meet."""
