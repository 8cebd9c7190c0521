#!/bin/sh
# Install the DFT codes that `mmace-sim label` runs here: GPAW into the environment of PYTHON, ABINIT by the system.
#
#     sh tools/install_dft.sh .venv/bin/python
#
# GPAW is compiled: it needs a C++ compiler, libxc and OpenBLAS, and is 1.5 times as fast with FFTW. Where apt-get can be
# used (as root, or by sudo without a password) they are installed, and ABINIT with them; elsewhere install them by hand:
# conda-forge has all of them.
set -e

python=${1:-python}
packages="g++ libxc-dev libopenblas-dev libfftw3-dev"
codes="abinit abinit-data"

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

if command -v apt-get > /dev/null; then
    as_root apt-get install -y -qq $packages > /dev/null 2>&1 ||
        echo "apt-get cannot install $packages: if GPAW does not compile below, install them by hand." >&2
    as_root apt-get install -y -qq $codes > /dev/null 2>&1 ||
        echo "apt-get cannot install $codes: --engine abinit needs the program abinit on PATH." >&2
else
    echo "No apt-get here: install a C++ compiler, libxc and OpenBLAS by hand, and ABINIT if you want it." >&2
fi

fftw=False
if echo '#include <fftw3.h>' | g++ -E - > /dev/null 2>&1; then fftw=True; fi
siteconfig=$(mktemp)
trap 'rm -f "$siteconfig"' EXIT
cat > "$siteconfig" << END
compiler = 'g++'
mpi = False
fftw = $fftw
scalapack = False
libraries = ['xc', 'openblas'] + ['fftw3'] * $fftw
END

# The wheel of gpaw knows nothing of this machine, so it is compiled here.
"$python" -m pip install --quiet "ase>=3.29" "gpaw-data>=1.2"
GPAW_CONFIG=$siteconfig CFLAGS=-O2 "$python" -m pip install --quiet --no-binary gpaw "gpaw>=26.7"

"$python" -c "import gpaw; print('GPAW', gpaw.__version__)"
if command -v abinit > /dev/null; then abinit --version | sed 's/^/ABINIT /'; else echo "ABINIT: not installed"; fi
