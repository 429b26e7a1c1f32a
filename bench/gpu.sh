#!/usr/bin/env bash
# Everything that needs a GPU, in one call of less than ten minutes; the last line is one JSON.
# Takes the first Python whose torch sees a GPU: .venv's, then python3; needs nothing else of ./run.
#
#   bench/gpu.sh [--budget-s 520] [--rounds 7] [--tiny]
set -euo pipefail
cd "$(dirname "$0")/.."

sees_gpu() {
    "$1" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' >/dev/null 2>&1
}

python=
for candidate in .venv/bin/python python3; do
    if command -v "$candidate" >/dev/null && sees_gpu "$candidate"; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    # No GPU: the program says so itself. It needs a torch for that; ./run setup brings one.
    [ -x .venv/bin/python ] || ./run setup
    python=.venv/bin/python
fi
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
exec timeout 590 "$python" -m bench.programs.gpu "$@"
