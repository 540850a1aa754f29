"""``cytoloop bench cip``: the whole Rosella recipe on a field, on one core."""

from __future__ import annotations

import time
from statistics import median

import cv2
import numpy as np

from cytoloop.adapters.assays import load_assay
from cytoloop.commands.bench.figures import BenchOptions, Figure, Measured, Tell
from cytoloop.commands.bench.material import FIELDS, ROUNDS, machine
from cytoloop.domain.cip import make_weak_label
from cytoloop.domain.simulate.plate import simulate_field

BAR = 1.0


def measure(_: BenchOptions, tell: Tell) -> Measured:
    """Processor time and wall time of one field."""
    assay = load_assay("rosella")
    images = [simulate_field("reference-1", 1, index).image_CHW.astype(np.float32) for index in range(FIELDS)]
    worked, taken = [], []
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        for number in range(ROUNDS + 1):
            for image_CHW in images:
                begun, begun_work = time.perf_counter(), time.process_time()
                make_weak_label(image_CHW, "", assay.cip)
                if number:  # the first round warms up
                    taken.append(time.perf_counter() - begun)
                    worked.append(time.process_time() - begun_work)
            tell("cip", number, ROUNDS)
    finally:
        cv2.setNumThreads(threads)
    figures = (
        Figure(name="processor time of a field", value=median(worked), unit="s", bar=BAR),
        Figure(name="wall time of a field", value=median(taken), unit="s"),
    )
    return Measured(name="cip", title=f"Rosella CIP, 680 x 512, one core; {machine()}", figures=figures)
