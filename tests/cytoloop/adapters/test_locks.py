"""One at a time, across processes."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from cytoloop.adapters.locks import exclusive

HOLD = """
import sys, time
from pathlib import Path
from cytoloop.adapters.locks import exclusive
with exclusive(Path(sys.argv[1]), "rosella"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_second_waits_until_the_first_is_gone_however_it_went(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        waited: list[float] = []

        def told() -> None:
            waited.append(time.monotonic())
            holder.kill()

        with exclusive(tmp_path, "rosella", on_wait=told):
            assert len(waited) == 1
            assert holder.wait(5) != 0


def test_another_assay_is_not_waited_for(tmp_path: Path) -> None:
    with exclusive(tmp_path, "rosella"), exclusive(tmp_path, "nuclei", on_wait=lambda: 1 / 0):
        pass
