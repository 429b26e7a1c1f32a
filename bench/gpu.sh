#!/usr/bin/env bash
# Everything that needs a GPU. Every figure is a line of JSON as soon as it is there; the last line
# is one JSON of all. Takes the first Python whose torch sees a GPU: .venv's, then python3; needs
# nothing else of ./run.
#
#   bench/gpu.sh [--out FILE] [--budget-s 330] [--rounds 50] [--tiny]     less than six minutes
#   bench/gpu.sh tests [...]      the tests marked `gpu`; what follows goes to pytest
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
if [ "${1:-}" = tests ]; then
    # Libraries of a GPU's image warn of much that is not ours, at import too.
    exec timeout 350 "$python" -m pytest -q -p no:cacheprovider -W default -m gpu tests/gpu "${@:2}"
fi
exec timeout 350 "$python" -m bench.programs.gpu "$@"
