#!/usr/bin/env bash
# SCRATCH: a folder for logs and queue; SHM: one in memory for world and pools.
# Queues student runs, waits, reports.  callC.sh STAGE START SECONDS [key=value ...]
set -u; Q=$SCRATCH/q; P=$SHM/p; cd .gpu/lead; T0=$SECONDS
python3 specs.py $Q $1 pool=$P/train val=$P/val start=$2 teacher=$SCRATCH/t0.pth steps=${STEPS:-1600} "${@:4}"
while [ $((SECONDS-T0)) -lt $3 ] && [ $(ls -d $Q/*.spec | wc -l) -gt $(ls $Q/*.result $Q/*.error 2>/dev/null | wc -l) ]; do sleep 1; done
python3 report.py $Q ${REPORT:-}; cat $Q/*.result > $OUT/results.jsonl; head -c 400 $(ls $Q/*.log | tail -1); echo; grep -h ms/step $Q/*.log | tail -3; echo "after $((SECONDS-T0)) s, $(ls -d $Q/*.claim | wc -l) claimed of $(ls $Q/*.spec | wc -l)"
