"""Simulated Rosella plates with pixel-exact truth.

``plate`` deals wells, treatments and looks; ``cells`` grows the cells; ``structures`` places what is
drawn and what confuses, as ``shapes`` on a ``canvas``; ``camera`` takes the picture; ``presets`` holds
every number. What is drawn is described in ``simulate_plate``.
"""

from __future__ import annotations

from cytoloop.domain.simulate.plate import (
    HEIGHT,
    WIDTH,
    FieldPlan,
    SimulatedField,
    plan_field,
    simulate_field,
    simulate_plate,
)
from cytoloop.domain.simulate.presets import LOOKS, PRESETS, SIMULATOR_VERSION, Look

__all__ = [
    "HEIGHT",
    "LOOKS",
    "PRESETS",
    "SIMULATOR_VERSION",
    "WIDTH",
    "FieldPlan",
    "Look",
    "SimulatedField",
    "plan_field",
    "simulate_field",
    "simulate_plate",
]
