#!/bin/sh
# Print the path of a Python that can run mmace_sim (>= 3.12, with venv), or say what is missing and how to get it.
#
# Usage: tools/find_python.sh [INTERPRETER]
# With an argument only that interpreter is tried. Otherwise, in this order: python3.12, python3.13, python3.14, python3,
# the versions that pyenv has, and what uv finds.

wanted="3.12"
report=""

# The real path of the interpreter if it is new enough and can make environments; a line in $report if it is not.
try() {
    label=$1
    shift
    found=$("$@" -c 'import sys; print("%d.%d.%d %s" % (*sys.version_info[:3], sys.executable))' 2>/dev/null) || return 1
    version=${found%% *}
    path=${found#* }
    if ! "$path" -c 'import sys; sys.exit(sys.version_info < (3, 12))'; then
        report="$report
  $label is Python $version, too old"
        return 1
    fi
    if ! "$path" -c 'import ensurepip, venv' 2>/dev/null; then
        report="$report
  $label is Python $version, but lacks the venv module (Debian, Ubuntu: apt install python${version%.*}-venv)"
        return 1
    fi
    echo "$path"
    exit 0
}

if [ -n "$1" ]; then
    try "$1" "$1"
    [ -n "$report" ] || report="
  $1 cannot be run"
else
    for name in python3.12 python3.13 python3.14 python3; do
        command -v "$name" >/dev/null 2>&1 && try "$name" "$name"
    done
    if command -v pyenv >/dev/null 2>&1; then
        for version in $(pyenv versions --bare 2>/dev/null | grep -E '^3\.(1[2-9]|[2-9][0-9])' | sort -t. -k2,2n -k3,3nr); do
            try "pyenv $version" env PYENV_VERSION="$version" pyenv exec python3
        done
    fi
    if command -v uv >/dev/null 2>&1; then
        path=$(uv python find --no-project ">=$wanted" 2>/dev/null) && try "uv's $path" "$path"
    fi
    [ -n "$report" ] || report="
  no python3.12, python3.13, python3.14 or python3 in PATH, and none from pyenv or uv"
fi

cat >&2 <<MESSAGE
mmace_sim needs Python >= $wanted. What was found:$report

Install one, then run the command again:
  Debian 13, Ubuntu 24.04:  sudo apt install python3 python3-venv
  Fedora:                   sudo dnf install python3.12
  macOS:                    brew install python@3.12
  conda:                    conda create -n mmace python=3.12 && conda activate mmace
  pyenv:                    pyenv install 3.12
  uv:                       uv python install 3.12
or name one that is installed elsewhere:  make PYTHON=/path/to/python3.12 ...
MESSAGE
exit 1
