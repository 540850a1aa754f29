"""Which device computes, and in what precision.

The one place that turns ``auto|cpu|cuda`` into a torch device.
"""

from __future__ import annotations

import torch

from cytoloop.domain.errors import ConfigError
from cytoloop.nn.train_config import Precision

DEVICE_NAMES = ("auto", "cpu", "cuda")


def choose_device(name: str = "auto") -> torch.device:
    """Return the device called ``auto`` (cuda where there is one), ``cpu`` or ``cuda``.

    Raises
    ------
    ConfigError
        If the name is another one, or cuda is asked for and not there: a run that was meant for
        the GPU must not crawl on the CPU in silence.
    """
    if name not in DEVICE_NAMES:
        raise ConfigError(f"device {name!r}: expected one of {', '.join(DEVICE_NAMES)}")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device 'cuda': this PyTorch sees no GPU; expected 'cpu' or 'auto' here")
    return torch.device(name)


def computing_in(precision: Precision, device: torch.device) -> torch.autocast:
    """Return a context in which networks compute in that precision; their weights stay float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def quick_precision() -> Precision:
    """Return what a network of this machine should compute in: bfloat16 where the hardware has it.

    A CPU without the instructions emulates it, slower than float32.
    """
    if torch.cuda.is_available():
        return "bfloat16"
    capable = torch.cpu.get_capabilities()
    return "bfloat16" if capable.get("avx512_bf16") or capable.get("amx_bf16") else "float32"
