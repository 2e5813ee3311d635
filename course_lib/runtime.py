"""Where a notebook runs: device, number type, seeds, and the profile that chooses its sizes."""

import os
import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import torch

from course_lib.checks import check_at_least

if TYPE_CHECKING:
    from accelerate import PartialState

T = TypeVar("T")
PROFILES = ("cpu", "gpu")


@dataclass(frozen=True)
class Run:
    """What `setup` found: `device`, `mixed_precision` ("no" or "bf16") for `train`, `profile`, and the seed."""

    device: torch.device
    mixed_precision: str
    profile: str
    seed: int

    def pick(self, cpu: T, gpu: T) -> T:
        """`cpu` in the cpu profile (sizes for a laptop's minute), `gpu` in the gpu profile (larger)."""
        return gpu if self.profile == "gpu" else cpu


def processes() -> "PartialState":
    """Accelerate's view of this process: its device, its rank, and how many there are.

    Under `torchrun` or `accelerate launch` without a GPU the processes talk through gloo: Accelerate must be told so.
    """
    from accelerate import PartialState

    return PartialState(cpu="LOCAL_RANK" in os.environ and not torch.cuda.is_available())


def setup(seed: int = 0, profile: str | None = None) -> Run:
    """Seed all generators, choose device and profile, set the house style of figures; print one line.

    The profile is the argument, else the environment variable COURSE_PROFILE, else "gpu" where CUDA is. It chooses
    sizes only; the device is always the best there is. May be called again at any time.
    Raises ValueError for an unknown profile or a negative seed.
    """
    from accelerate.utils import set_seed

    from course_lib import __version__
    from course_lib.viz.plots import use_house_style

    check_at_least("seed", seed, 0)
    device = processes().device
    profile = profile or os.environ.get("COURSE_PROFILE") or ("gpu" if device.type == "cuda" else "cpu")
    if profile not in PROFILES:
        raise ValueError(f"profile={profile!r} (argument or COURSE_PROFILE); allowed are {', '.join(PROFILES)}")
    # Emulated bfloat16 (a T4 has no other) is slower than float32.
    bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    set_seed(seed)
    use_house_style()
    run = Run(device, "bf16" if bf16 else "no", profile, seed)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    print(
        f"course_lib {__version__} · Python {platform.python_version()} · torch {torch.__version__.split('+')[0]} · "
        f"device {device.type} ({name}) · {'bfloat16' if bf16 else 'float32'} · profile {profile} · seed {seed}"
    )
    return run
