#!/usr/bin/env bash
# Tests other versions than those of requirements/, each row in an environment of its own:
#
#   bash tests/versions.sh [ROW ...]      default: every row
#   VERSIONS=DIR                          where the environments go (default: .versions)
#
# A row's packages are resolved from the ranges of setup.cfg; then everything of the core is imported, the core's tests are run, and
# the student of docs/extending.md is distilled for a few steps (tests/test_extending.py).
set -uo pipefail
cd "$(dirname "$0")/.."
VERSIONS=${VERSIONS:-.versions}

# row: Python; what pip is asked for beside our core and its tests
declare -A ROWS=(
  [numpy2]="python3.11; torch==2.13.0 numpy>=2"
  [oldest]="python3.10; torch==2.1.2 mmengine==0.10.4 numpy<2 setuptools<70"
  [newest]="python3.12; torch numpy>=2"
  [onedl]="python3.11; torch==2.13.0 numpy<2 onedl-mmengine onedl-mmcv onedl-mmdet nuscenes-devkit scikit-image"
)
CORE_TESTS="tests/test_doctor.py tests/test_cli.py tests/test_extending.py tests/test_geometry tests/test_rendering tests/test_losses
  tests/test_evaluation tests/test_distillation/test_distiller.py tests/test_distillation/test_schedule.py"
IMPORTS='import radocc_plugin.distillation, radocc_plugin.evaluation, radocc_plugin.geometry, radocc_plugin.losses, radocc_plugin.rendering
import radocc_plugin.segments, radocc_plugin.structures, radocc_plugin.visualization'

test_row() {
  local row=$1 python=${ROWS[$1]%%;*} packages=${ROWS[$1]#*;} venv=$VERSIONS/$1
  command -v "$python" >/dev/null && "$python" -c '' 2>/dev/null || { echo "skipped: no $python"; return; }
  [ -x "$venv/bin/pip" ] || "$python" -m venv "$venv" || { echo "failed: venv"; return; }
  if [ "$row" = onedl ]; then
    # The forks do not satisfy "mmengine" for pip: what we need is named.
    "$venv/bin/pip" install -q $packages einops filelock numba rich 'setuptools<82' pytest hypothesis packaging &&
      "$venv/bin/pip" install -q --no-deps --no-build-isolation -e . || { echo "failed: pip"; return; }
  else
    "$venv/bin/pip" install -q $packages -e . pytest hypothesis packaging || { echo "failed: pip"; return; }
  fi
  # Not from an installed copy: this checkout is tested.
  PYTHONPATH=. "$venv/bin/python" -W ignore -c "$IMPORTS" || { echo "failed: import"; return; }
  "$venv/bin/python" -m pytest -q $CORE_TESTS >"$venv/core.log" 2>&1
  local result=$?
  local summary=$(tail -1 "$venv/core.log")
  [ $result = 0 ] && echo "passed: $summary" || echo "failed: $summary ($venv/core.log)"
}

failed=0
[ $# = 0 ] && set -- $(printf '%s\n' "${!ROWS[@]}" | sort)
for row; do
  [ -n "${ROWS[$row]:-}" ] || { echo "ROW takes one of ${!ROWS[*]}, got $row"; exit 1; }
  outcome=$(test_row "$row" | tail -1)
  versions=$("$VERSIONS/$row/bin/python" -c 'import platform; from importlib.metadata import distributions as d
found = {x.metadata["Name"]: x.version for x in d()}
names = "torch numpy mmengine onedl-mmengine onedl-mmcv onedl-mmdet".split()
print("python", platform.python_version(), *(f"{n} {found[n]}" for n in names if n in found))' 2>/dev/null)
  echo "$row | $versions | $outcome"
  case $outcome in failed*) failed=1 ;; esac
done
exit $failed
