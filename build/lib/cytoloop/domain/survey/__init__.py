"""Studies with people: the blind rating and the box surrogate, from the draw to the statistics.

``study`` deals items into sets and experts, ``rating_design`` hides the methods, ``rating`` tests what was
answered; ``boxing`` compares drawn boxes with those of masks.
"""
