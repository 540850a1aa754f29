"""Where bytes live: SQLite, files, images, plates, assay YAML, the model registry."""
