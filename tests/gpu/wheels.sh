#!/usr/bin/env bash
# Packages for a machine with PyTorch and without a network: the wheels that mmace_sim needs beside it, into .gpu/wheels.
# Only what measuring loads and such a machine lacks, or has in another version (e3nn): 16 MB, which git ignores, so that .gpu/wheels
# must be named among what travels.
set -eu
cd "$(dirname "$0")/../.."
python="${PYTHON:-python3}"
rm -rf .gpu/wheels
mkdir -p .gpu/wheels
"$python" -m pip download --quiet --no-deps --only-binary :all: --python-version 3.12 --implementation cp \
  --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 --platform any -d .gpu/wheels \
  ase e3nn==0.4.4 lmdb mace-torch matscipy numexpr orjson platformdirs pydantic pydantic-core annotated-types \
  typing-inspection spglib tables torch-ema torch-sim-atomistic
du -sh .gpu/wheels
