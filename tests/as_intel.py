"""Have oneMKL take the kernels that it takes on Intel's processors, on any with the same sets.

The library asks two functions of its own for the processor's maker; a library that is loaded
before it answers for them. What then computes are the real kernels.
"""

import shutil
import subprocess
from pathlib import Path

_SOURCE = """
int mkl_serv_intel_cpu_true(void) { return 1; }
int mkl_serv_intel_cpu(void) { return 1; }
"""


def as_intel(folder: Path) -> dict[str, str] | None:
    """Return the environment that does it; None where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    library, source = folder / "as_intel.so", folder / "as_intel.c"
    source.write_text(_SOURCE)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    return {"LD_PRELOAD": str(library)}
