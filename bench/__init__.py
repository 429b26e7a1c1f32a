"""Benchmarks: programs whose last line on standard output is one JSON object.

The matrix library gets the setting that a server on this processor would give it, which it reads
when torch is loaded: so figures include the price of answers that do not depend on the batch.
"""

import os

from server.processor.choice import VARIABLE, this_processor

if (setting := this_processor().guess()) is not None:
    os.environ.setdefault(VARIABLE, setting)
