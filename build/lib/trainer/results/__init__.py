"""The results page: CIP, CDL, MDL and joint models compared on data whose truth is known.

``datasets`` says what is learned from and what judges, ``plan`` which runs there are, ``running`` does one
of them, ``summary`` puts them together with paired intervals over groups, ``page`` writes
``docs/results.md``. Runs are files: a study that is stopped goes on where it was.
"""
