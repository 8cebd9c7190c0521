#!/usr/bin/env bash
# Everything that the project wants to know of a GPU, in one command of less than eight minutes:
#   bash tests/gpu/run.sh                          on a machine with a GPU
#   bash tests/gpu/run.sh --device cpu --quick     tries the script itself, in some minutes of a free core
#   bash tests/gpu/run.sh --parts training,memory  only these; the names and their limits are in tests/gpu/measure.py
# Results: $OUT (default docs/benchmarks): gpu.json, written again with each new row, gpu.png and gpu.svg.
# A bare machine without a network: bring the packages that it lacks in a folder, made here by tests/gpu/wheels.sh.
set -eu
cd "$(dirname "$0")/../.."
export PYTHONPATH="$PWD:$PWD/tests/benchmarks" PYTHONUNBUFFERED=1 JAXTYPING_DISABLE=1 OMP_NUM_THREADS="${OMP_NUM_THREADS:-4}"
python="${PYTHON:-python3}"
if [ -d .gpu/wheels ]; then
  "$python" -m pip install --quiet --no-index --no-deps --no-compile --upgrade --target .gpu/packages .gpu/wheels/*.whl
  export PYTHONPATH="$PYTHONPATH:$PWD/.gpu/packages"
fi
exec "$python" tests/gpu/measure.py --out "${OUT:-docs/benchmarks}" "$@"
