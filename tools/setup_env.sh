#!/usr/bin/env bash
# Builds a tested CPU environment in .venv. Skips what is already there; safe to run again after a break.
#
#   SET      light: what the quickstart needs; full: what the tests need   (default: light)
#   MMCV     lite: mmcv-lite, nothing is compiled; compiled: mmcv's ops    (default: what is there, else lite)
#   VENV     where the environment goes            (default: .venv beside this repository's README)
#   WHEELS   where the compiled mmcv wheel is kept (default: ~/.cache/radocc-plugin/wheels, shared by all clones)
#   PYTHON   the Python to start from              (default: python3.11)
set -euo pipefail
ROOT=$(cd "$(dirname "$0")/.." && pwd)
VENV=${VENV:-$ROOT/.venv}
PYTHON=${PYTHON:-python3.11}
SET=${SET:-light}
START=$SECONDS
STEP=$SECONDS
say() { printf '[setup] %s\n' "$*"; }
fail() { say "$*"; exit 1; }
lap() { say "$1: $((SECONDS - STEP)) s"; STEP=$SECONDS; }
has() { "$VENV/bin/python" -c "from importlib.metadata import version; version('$1')" 2>/dev/null; }

[ -z "${MMCV:-}" ] && { MMCV=lite; [ -x "$VENV/bin/python" ] && has mmcv && MMCV=compiled; }
case $SET in light | full) ;; *) fail "SET takes light or full, got $SET" ;; esac
case $MMCV in lite | compiled) ;; *) fail "MMCV takes lite or compiled, got $MMCV" ;; esac

# The stamp says what was installed, with the hash of everything that decides it.
STAMP=$VENV/.radocc-setup
HASH=$(cat "$ROOT"/requirements/*.txt "$ROOT/setup.cfg" "$ROOT/setup.py" "$0" | sha256sum | cut -d' ' -f1)
FOUND=$(cat "$STAMP" 2>/dev/null || true)
if [ "$FOUND" = "$SET $MMCV $HASH" ] || [ "$FOUND" = "full $MMCV $HASH" ]; then
  say "environment in $VENV is up to date"
  exit 0
fi

command -v "$PYTHON" >/dev/null || fail "$PYTHON not found: install Python 3.11 or set PYTHON"
"$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || fail "$PYTHON lacks venv (Debian: apt-get install python3.11-venv)"
if [ $MMCV = compiled ]; then
  command -v g++ >/dev/null || fail 'g++ not found: install a C++ compiler (Debian: apt-get install g++)'
  "$PYTHON" -c 'import os, sysconfig; assert os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h"))' 2>/dev/null ||
    fail "$PYTHON lacks its C headers (Debian: apt-get install python3.11-dev)"
fi

export PIP_DISABLE_PIP_VERSION_CHECK=1
if [ ! -x "$VENV/bin/pip" ]; then
  say "creating a virtual environment in $VENV"
  "$PYTHON" -m venv "$VENV"
fi
rm -f "$STAMP"
PIP="$VENV/bin/python -m pip"
# Only what is imported is compiled to bytecode, when it is.
INSTALL="$PIP install -q --no-compile"

LOCK=$(mktemp -d)
trap 'rm -rf "$LOCK"' EXIT
grep -hv -e '^-r' "$ROOT/requirements/light.txt" $([ $SET = full ] && echo "$ROOT/requirements/full.txt") >"$LOCK/lock.txt"
TORCH=$(grep '^torch==' "$LOCK/lock.txt")
say "installing $TORCH"
$INSTALL -c "$LOCK/lock.txt" $TORCH
lap torch

# The two share a folder: never both.
if [ $MMCV = lite ]; then
  has mmcv && $PIP uninstall -q -y mmcv
else
  has mmcv-lite && $PIP uninstall -q -y mmcv-lite
  sed -i '/^mmcv-lite==/d' "$LOCK/lock.txt"
fi
say "installing the $SET set with mmcv $MMCV"
# Every package has its version in the lock, so nothing is left to resolve.
$INSTALL --no-deps -r "$LOCK/lock.txt"
lap 'packages'

if [ $MMCV = compiled ]; then
  # A wheel fits one Python and one torch build.
  TAG=$("$VENV/bin/python" -W ignore -c 'import sys, torch; print(f"torch{torch.__version__}-cp{sys.version_info[0]}{sys.version_info[1]}")')
  WHEELS=${WHEELS:-$HOME/.cache/radocc-plugin/wheels}/$TAG
  if ls "$WHEELS"/mmcv-2.1.0-*.whl >/dev/null 2>&1; then
    say "reusing the compiled mmcv wheel in $WHEELS"
  else
    say 'compiling mmcv 2.1.0 with its ops (once; 4-10 minutes on 2 cores)'
    mkdir -p "$WHEELS"
    BUILD=$LOCK/mmcv
    mkdir "$BUILD"
    $INSTALL psutil  # mmcv's build asks it for the cores
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
  fi
  $INSTALL --no-deps "$WHEELS"/mmcv-2.1.0-*.whl
  lap 'mmcv with its ops'
fi

$INSTALL --no-deps --no-build-isolation -e "$ROOT"
$PIP check
# The two OpenCV packages share a folder, too; only the headless one does without a desktop's libraries.
"$VENV/bin/python" -c 'import cv2' 2>/dev/null ||
  $INSTALL --no-deps --force-reinstall "$(grep '^opencv-python-headless==' "$LOCK/lock.txt")"
"$VENV/bin/python" -c 'import cv2' || fail 'OpenCV does not import (Debian: apt-get install libgl1 libglib2.0-0)'
lap 'radocc_plugin and checks'
echo "$SET $MMCV $HASH" >"$STAMP"
say "ready in $((SECONDS - START)) s: $VENV"
