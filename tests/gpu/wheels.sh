#!/usr/bin/env bash
# Packages for a machine with PyTorch and without a network: the wheels that mmace_sim needs beside it, into .gpu/wheels.
set -eu
cd "$(dirname "$0")/../.."
python="${PYTHON:-python3}"
mkdir -p .gpu/wheels
"$python" -m pip download --quiet --no-deps --only-binary :all: --python-version 3.12 --implementation cp \
  --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 --platform any -d .gpu/wheels \
  e3nn==0.4.4 ase matscipy phonopy symfc pymatgen monty spglib torch-sim-atomistic pydantic pydantic-core annotated-types \
  typing-inspection filelock httpx httpcore h11 anyio sniffio certifi idna jinja2 markupsafe platformdirs pyyaml tables \
  numexpr ndindex blosc2 msgpack py-cpuinfo ruamel.yaml tabulate uncertainties palettable networkx bibtexparser orjson \
  mace-torch opt-einsum-fx opt-einsum configargparse torch-ema prettytable python-hostlist lmdb
du -sh .gpu/wheels
