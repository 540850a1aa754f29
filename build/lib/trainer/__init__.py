"""The scheduled process: looks for new corrections, trains, lets candidates compete, reports."""
