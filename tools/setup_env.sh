#!/usr/bin/env bash
# Builds the tested CPU environment in .venv. Skips what is already there; safe to run again after a break.
#
#   VENV     where the environment goes            (default: .venv beside this repository's README)
#   WHEELS   where the compiled mmcv wheel is kept (default: ~/.cache/radocc-plugin/wheels, shared by all clones)
#   PYTHON   the Python to start from              (default: python3.11)
set -euo pipefail
ROOT=$(cd "$(dirname "$0")/.." && pwd)
VENV=${VENV:-$ROOT/.venv}
PYTHON=${PYTHON:-python3.11}
TORCH=torch==2.13.0
START=$SECONDS
STEP=$SECONDS
say() { printf '[setup] %s\n' "$*"; }
lap() { say "$1: $((SECONDS - STEP)) s"; STEP=$SECONDS; }

# The stamp holds the hash of everything that decides what is installed.
STAMP=$VENV/.radocc-setup
WANT=$(cat "$ROOT/requirements/lock.txt" "$ROOT/requirements/stack.txt" "$ROOT/setup.cfg" "$ROOT/setup.py" "$0" | sha256sum | cut -d' ' -f1)
if [ "$(cat "$STAMP" 2>/dev/null || true)" = "$WANT" ]; then
  say "environment in $VENV is up to date"
  exit 0
fi

command -v "$PYTHON" >/dev/null || { say "$PYTHON not found: install Python 3.11 or set PYTHON"; exit 1; }
command -v g++ >/dev/null || { say 'g++ not found: install a C++ compiler (Debian: apt-get install g++)'; exit 1; }

"$PYTHON" -c 'import os, sysconfig, ensurepip, venv; assert os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h"))' 2>/dev/null ||
  { say "$PYTHON lacks venv or its C headers (Debian: apt-get install python3.11-venv python3.11-dev)"; exit 1; }

export PIP_CONSTRAINT=$ROOT/requirements/lock.txt PIP_DISABLE_PIP_VERSION_CHECK=1
if [ ! -x "$VENV/bin/pip" ]; then
  say "creating a virtual environment in $VENV"
  "$PYTHON" -m venv "$VENV"
fi
PIP="$VENV/bin/python -m pip"

say 'installing torch and build tools (about 1 GB, 1-2 minutes)'
$PIP install -q $TORCH numpy==1.26.4 'setuptools>=77.0.3,<80' wheel ninja psutil packaging
lap 'torch and build tools'

# A wheel fits one Python and one torch build.
TAG=$("$VENV/bin/python" -W ignore -c 'import sys, torch; print(f"torch{torch.__version__}-cp{sys.version_info[0]}{sys.version_info[1]}")')
WHEELS=${WHEELS:-$HOME/.cache/radocc-plugin/wheels}/$TAG
if ls "$WHEELS"/mmcv-2.1.0-*.whl >/dev/null 2>&1; then
  say "reusing the compiled mmcv wheel in $WHEELS"
else
  say 'compiling mmcv 2.1.0 with its ops (once; 4-10 minutes on 2 cores)'
  mkdir -p "$WHEELS"
  BUILD=$(mktemp -d)
  trap 'rm -rf "$BUILD"' EXIT
  INCLUDES=$("$VENV/bin/python" -W ignore -c "import sysconfig; from torch.utils.cpp_extension import include_paths; print(*['-I' + p for p in include_paths()], '-I' + sysconfig.get_paths()['include'])")
  # One precompiled torch header saves three quarters of the time; its flags must equal the build's or g++ ignores it silently.
  FLAGS='-O2 -g0 -DNDEBUG -fwrapv -fPIC'
  echo '#include <torch/types.h>' >"$BUILD/mmcv_pch.h"
  g++ $INCLUDES -DTORCH_API_INCLUDE_EXTENSION_H -DTORCH_EXTENSION_NAME=_ext $FLAGS -std=c++17 -w -x c++-header "$BUILD/mmcv_pch.h" -o "$BUILD/mmcv_pch.h.gch"
  MMCV_WITH_OPS=1 FORCE_CUDA=0 MAX_JOBS=$(nproc) PATH="$VENV/bin:$PATH" \
    CFLAGS="$FLAGS -include $BUILD/mmcv_pch.h" CXXFLAGS="$FLAGS -include $BUILD/mmcv_pch.h" \
    $PIP wheel -q --no-deps --no-build-isolation --no-cache-dir -w "$BUILD" mmcv==2.1.0
  # Copied beside its place and renamed, so that no clone ever sees half of it.
  WHEEL=$(basename "$BUILD"/mmcv-2.1.0-*.whl)
  cp "$BUILD/$WHEEL" "$WHEELS/.$WHEEL.$$" && mv "$WHEELS/.$WHEEL.$$" "$WHEELS/$WHEEL"
  lap 'mmcv wheel'
fi

say 'installing the OpenMMLab stack (2-5 minutes)'
# torch is named again so that no dependency can pull another build of it.
$PIP install -q "$WHEELS"/mmcv-2.1.0-*.whl $TORCH -r "$ROOT/requirements/stack.txt"
lap 'stack'
# A legacy editable install: mim and mmengine do not find the configs of a PEP 660 one.
(cd "$ROOT" && $PIP install -q --no-deps --no-use-pep517 --no-build-isolation -e .)
lap 'radocc_plugin'
$PIP check
"$VENV/bin/python" -c 'import cv2' || { say 'OpenCV does not import (Debian: apt-get install libgl1 libglib2.0-0)'; exit 1; }
echo "$WANT" >"$STAMP"
say "ready in $((SECONDS - START)) s: $VENV"
