"""All that speaks Label Studio's language."""
