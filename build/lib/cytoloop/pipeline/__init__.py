"""Adapters and networks joined: what both processes and the command line do with a store.

Weak-label a plate, turn a snapshot into training items, load a version as a predictor, measure a
version on corrections. No web, no scheduler, no Label Studio here.
"""
