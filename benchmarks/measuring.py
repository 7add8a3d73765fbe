"""How the benchmarks time a step and see what memory it needs."""

import time
from pathlib import Path

import torch


class PeakMemory:
    """Bytes by which the peak within a `with` exceeds what was held before: of the process, or of a GPU's tensors.

    Not `ru_maxrss`: a process inherits that from the one that started it.
    """

    def __init__(self, device):
        self.device = device

    def __enter__(self):
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
        else:
            Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again at what is held now
            self.before = _process_memory("VmRSS")
        return self

    def __exit__(self, *error):
        peak = torch.cuda.max_memory_allocated() if self.device == "cuda" else _process_memory("VmHWM")
        self.bytes = peak - self.before


def _process_memory(name):
    """A line of the kernel's account of this process, such as "VmHWM", the peak of its memory, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def peak_of(step, device):
    """Megabytes that three steps need beside what there is."""
    with PeakMemory(device) as memory:
        for _ in range(3):
            step()
    return memory.bytes / 2**20


def seconds_of(step, device):
    """Of one step, the device's work included."""
    start = time.perf_counter()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def seconds_by_turns(steps, rounds, device):
    """{name: seconds of each round} of {name: step without arguments}, turn by turn, after one round to warm up."""
    for step in steps.values():
        seconds_of(step, device)
    times = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            times[name].append(seconds_of(step, device))
    return times
