"""What a ranking is worth: active learning on data whose truth is known, in minutes of an expert.

``setting`` draws a pool and what judges; ``simulation`` lets a simulated expert work through worklists;
``curves`` compares strategies with random choice over paired seeds; ``page`` tells it.
"""
