#!/usr/bin/env bash
# Tests other versions than those of requirements/, each row in an environment of its own:
#
#   bash tests/versions.sh [ROW ...]      default: every row but ci
#   VERSIONS=DIR                          where the environments go (default: .versions)
#   KEEP=1                                leaves them there; else each goes when its row is done
#   TESTS="FILE ..."                      what is run (default: the core's tests; of the row ci: a minute of them)
#
# A row's packages are resolved from the ranges of setup.cfg; then the core is imported, its tests are run, and a student is distilled
# by MMEngine's Runner (tests/test_distillation/test_distiller.py). The row ci is numpy 2 over the environment that the tests have.
set -uo pipefail
cd "$(dirname "$0")/.."
VERSIONS=${VERSIONS:-.versions}
VENV=${VENV:-.venv}

# row: Python; what pip is asked for beside our core and its tests
declare -A ROWS=(
  [numpy2]="3.11; torch==2.13.0 numpy>=2"
  [oldest]="3.10; torch==2.1.2 mmengine==0.10.4 numpy<2 setuptools<70"
  [newest]="3.12; torch numpy>=2"
  [onedl]="3.11; torch==2.13.0 numpy<2 onedl-mmengine opencv-python-headless<4.12"
  [ci]="3.11; numpy>=2"
)
BRIEF="tests/test_extending.py tests/test_geometry tests/test_rendering/test_renderer.py tests/test_evaluation/test_occ_metric.py
  tests/test_distillation/test_distiller.py"
CORE="$BRIEF tests/test_doctor.py tests/test_cli.py tests/test_losses tests/test_rendering/test_density.py
  tests/test_rendering/test_functional.py tests/test_rendering/test_voxel_light.py tests/test_evaluation
  tests/test_distillation/test_schedule.py"
IMPORTS='import radocc_plugin.distillation, radocc_plugin.evaluation, radocc_plugin.geometry, radocc_plugin.losses, radocc_plugin.rendering
import radocc_plugin.segments, radocc_plugin.structures, radocc_plugin.visualization'

# The interpreter of a version: on the PATH, or another one of pyenv.
find_python() {
  for python in "python$1" "$HOME/.pyenv/versions/$1".*/bin/python; do
    "$python" -c '' 2>/dev/null && { echo "$python"; return; }
  done
}

prepare() {
  local row=$1 python packages=${ROWS[$1]#*;} venv=$VERSIONS/$1
  if [ "$row" = ci ]; then
    # numpy comes before that of the environment; nothing there is changed.
    "$VENV/bin/python" -m pip install -q --no-deps --upgrade --target "$venv" $packages || { echo 'failed: pip'; return 1; }
    return
  fi
  python=$(find_python "${ROWS[$row]%%;*}")
  [ -n "$python" ] || { echo "skipped: no Python ${ROWS[$row]%%;*}"; return 1; }
  [ -x "$venv/bin/pip" ] || "$python" -m venv "$venv" || { echo 'failed: venv'; return 1; }
  if [ "$row" = onedl ]; then
    # The fork does not satisfy "mmengine" for pip, nor does it name OpenCV: what we need is named.
    "$venv/bin/pip" install -q $packages einops filelock numba rich 'setuptools<82' pytest hypothesis packaging &&
      "$venv/bin/pip" install -q --no-deps --no-build-isolation -e . || { echo 'failed: pip'; return 1; }
  else
    "$venv/bin/pip" install -q $packages -e . pytest hypothesis packaging || { echo 'failed: pip'; return 1; }
  fi
}

test_row() {
  local row=$1 tests=$CORE python=$VERSIONS/$1/bin/python path=. log=$VERSIONS/$1.log
  prepare "$row" || return
  [ "$row" = ci ] && python=$VENV/bin/python path=$VERSIONS/ci:. tests=$BRIEF
  tests=${TESTS:-$tests}
  "$python" -c '' || return
  # Not from an installed copy: this checkout is tested.
  export PYTHONPATH=$path
  "$python" -c 'import platform; from importlib.metadata import distributions
found = {}
for d in distributions():
    found.setdefault(d.metadata["Name"], d.version)
names = "torch numpy mmengine onedl-mmengine onedl-mmcv onedl-mmdet".split()
print("python", platform.python_version(), *(f"{n} {found[n]}" for n in names if n in found))' >"$VERSIONS/$row.versions"
  "$python" -W ignore -c "$IMPORTS" || { echo 'failed: import'; return; }
  "$python" -m pytest -q $tests >"$log" 2>&1
  local result=$? summary
  summary=$(tail -1 "$log")
  [ $result = 0 ] && echo "passed: $summary" || echo "failed: $summary ($log)"
}

failed=0
[ $# = 0 ] && set -- newest numpy2 oldest onedl
mkdir -p "$VERSIONS"
for row; do
  [ -n "${ROWS[$row]:-}" ] || { echo "ROW takes one of ${!ROWS[*]}, got $row"; exit 1; }
  SECONDS=0
  outcome=$(test_row "$row" | tail -1)
  echo "$row | $(cat "$VERSIONS/$row.versions" 2>/dev/null) | $outcome | $SECONDS s"
  [ -n "${KEEP:-}" ] || rm -rf "${VERSIONS:?}/$row"
  case $outcome in failed* | '') failed=1 ;; esac
done
exit $failed
