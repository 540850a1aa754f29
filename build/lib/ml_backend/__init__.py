"""The web process: answers Label Studio and scripts, never trains."""
