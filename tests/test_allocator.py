"""Keeping freed memory: accepted where glibc is, and large arrays then come without new pages."""

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource
import torch
from mmace_sim.base.allocator import keep_freed_memory

torch.set_num_threads(1)
if {keep}:
    assert keep_freed_memory()
torch.ones(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    torch.ones(2**20)
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
raise SystemExit(0 if faults < 1000 else 1)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
@pytest.mark.parametrize(("keep", "code"), [(True, 0), (False, 1)])
def test_large_arrays_reuse_their_pages(keep, code):
    done = subprocess.run([sys.executable, "-c", SCRIPT.format(keep=keep)], check=False)
    assert done.returncode == code
