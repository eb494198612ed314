#!/usr/bin/env bash
# Checks and measures on a GPU: one table and one JSON, ten minutes on an H100.
#
#   tools/gpu_check.sh [--out work_dirs/gpu_check] [--device cuda] [--dry-run]
#                      [--minutes 10] [PART ...]
#
# Parts, all by default: `tests` (those marked gpu), `rendering` (every backend
# against float64, speed of the distillation, kernels and waits), `students`
# (step time, memory and kernels of each student alone, with RadOcc, with a
# cached teacher), `suite` (teacher, baseline and RadOcc student of the tiny
# suite, trained and tested, in the time that is left). What has a result is
# not run again: delete its file in the output folder to repeat it. After
# --minutes nothing starts or goes on; the same command continues. A step that
# fails stops no other, and result.json and table.md are written after each.
# --dry-run takes tiny models and few repetitions and leaves the suite out.
# PYTHON names the interpreter.
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python} out=work_dirs/gpu_check device=cuda dry= minutes=10 parts=()
while [ $# -gt 0 ]; do
  case $1 in
    --out) out=$2; shift ;;
    --device) device=$2; shift ;;
    --dry-run) dry=1 ;;
    --minutes) minutes=$2; shift ;;
    tests|rendering|students|suite) parts+=("$1") ;;
    *) echo "gpu_check.sh takes --out, --device, --dry-run, --minutes and the parts tests, rendering, students, suite; got $1" >&2; exit 2 ;;
  esac
  shift
done
[ ${#parts[@]} -gt 0 ] || parts=(tests rendering students suite)
if [ "$device" != cpu ] && ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  echo "gpu_check.sh: torch sees no GPU; take --device cpu --dry-run to try the script" >&2
  exit 2
fi
if ! [[ $minutes =~ ^[1-9][0-9]*$ ]]; then
  echo "gpu_check.sh: --minutes takes a positive whole number, got $minutes" >&2
  exit 2
fi
mkdir -p "$out"

# report: all results so far, as result.json and table.md
report() {
"$python" - "$out" <<'PYTHON'
import json
import sys
from pathlib import Path

folder = Path(sys.argv[1])
result = {'seconds': {p.stem: int(p.read_text())
                      for p in sorted(folder.glob('*.took'))}}


def lines_of(name):
    log = folder / f'{name}.log'
    return log.read_text().splitlines() if log.is_file() else []


table = ['| what | result |', '|---|---|']


def show(what, value):
    table.append(f'| {what} | {value} |')


if lines_of('tests'):
    result['tests'] = lines_of('tests')[-1].strip('= ')
    show('tests marked gpu', result['tests'])
if (folder / 'rendering.json').is_file():
    result['rendering'] = json.loads((folder / 'rendering.json').read_text())
    for scene in result['rendering']:
        for name, row in scene['rows'].items():
            step, light = row['step'], row.get('light')
            show(f'{scene["name"]}, {name}, {scene["device"]}',
                 f'step {step["ms"]:.3g} ms, '
                 f'{scene["rays"] / step["ms"] / 1e3:.1f} Mrays/s, '
                 f'{scene["crossings"] / step["ms"] / 1e6:.2f} Gcrossings/s'
                 + (f'; light {light["ms"]:.3g} ms' if light else '')
                 + f'; depth error {row["depth_error"]:.1e} m')
models = [model for path in sorted(folder.glob('radocc_*.json'))
          for model in json.loads(path.read_text())]
result['students'] = models
alone = {m['config']: m['seconds'] for m in models if m['part'] == 'student'}
for m in models:
    ratio = m['seconds'] / alone.get(m['config'], float('nan'))
    show(f'{m["config"]}, {m["part"]}',
         f'{1e3 * m["seconds"]:.0f} ms ({ratio:.2f} of the student), peak '
         f'{m["peak"] / 2**30:.2f} GiB, {m.get("kernels", "-")} kernels')
if lines_of('suite'):
    result['suite'] = lines_of('suite')[-12:]
    table += ['', *result['suite']]
for name, text in (('result.json', json.dumps(result, indent=1)), ('table.md', '\n'.join(table))):
    (folder / f'{name}.part').write_text(text + '\n')
    (folder / f'{name}.part').replace(folder / name)
PYTHON
}

# run NAME LIMIT COMMAND...: once; its output in NAME.log, its time in NAME.took
run() {
  local name=$1 limit=$2 begin=$SECONDS left=$((60 * minutes - SECONDS)); shift 2
  [ ! -f "$out/$name.took" ] || { echo "$name: done before"; return; }
  [ -z "$dry" ] || { limit=$((8 * limit)) left=$limit; }  # of a CPU
  [ "$left" -gt 10 ] || { echo "$name: no time left, run the same command again"; return; }
  [ "$limit" -lt "$left" ] || limit=$left
  echo "$name ..."
  if timeout -k 10 "$limit" "$@" > "$out/$name.log" 2>&1; then
    echo $((SECONDS - begin)) > "$out/$name.took"
  else
    echo "$name failed or was stopped after $((SECONDS - begin)) s, see $out/$name.log"
    tail -n 3 "$out/$name.log"
  fi
  report
}

for part in "${parts[@]}"; do
  case $part in
    tests)
      mapfile -t files < <(grep -rl --include='test_*.py' 'mark\.gpu' tests projects)
      run tests 120 "$python" -m pytest -q -m gpu "${files[@]}" ;;
    rendering)
      rays=(6x56x100 random-80000 batch-of-4-80000) options=(--reps 9)
      [ -z "$dry" ] || { rays=(6x8x14); options=(--reps 1 --scenes foggy); }
      run rendering 120 "$python" tools/benchmark.py rendering \
        --device "$device" --rays "${rays[@]}" "${options[@]}" \
        --json "$out/rendering.json" ;;
    students)
      configs=(radocc_bevdet-occ_r50-256x704_8xb4-24e_occ3d
               radocc_bevdet-occ_r50-4d-stereo-256x704_8xb4-24e_occ3d
               radocc_flashocc_r50-m0-256x704_4xb4-24e_occ3d
               radocc_fbocc_r50-256x704_16xb4-20e_occ3d
               radocc_bevformer-occ_r50-256x704_8xb4-24e_occ3d)
      options=(--batch 4 --repeat 5 --warm-up 2)
      [ -z "$dry" ] || { configs=(radocc_bevdet-occ_tiny_1xb1-3e_synthetic)
                         options=(--repeat 1 --warm-up 0); }
      for config in "${configs[@]}"; do
        run "$config" 75 "$python" tools/benchmark.py model \
          "configs/radocc/$config.py" --device "$device" "${options[@]}" \
          --json "$out/$config.json"
      done ;;
    suite)
      [ -n "$dry" ] || run suite 600 "$python" tools/reproduce_table.py quickstart \
        --work-dir "$out/suite" ;;
  esac
done

report
cat "$out/table.md"
echo; echo "JSON: $out/result.json"
for part in "${parts[@]}"; do
  [ "$part" = students ] || [ "$part$dry" = suite1 ] || [ -f "$out/$part.took" ] || exit 1
done
