#!/usr/bin/env bash
# SCRATCH: a folder for logs and queue; SHM: one in memory for world and pools.
# Infos, pools, teacher, its logits; starts the students' workers.
set -u; export OMP_NUM_THREADS=1 PYTHONUNBUFFERED=1 RADOCC_ROOT=$PWD PYTHONPATH=$PWD:${PYTHONPATH:-} TMPDIR=$SCRATCH
[ "${MPS:-1}" = 1 ] && export CUDA_MPS_PIPE_DIRECTORY=$SCRATCH/mps CUDA_MPS_LOG_DIRECTORY=$SCRATCH/mpslog
T0=$SECONDS; D=$SHM/w; P=$SHM/p; Q=$SCRATCH/q; mkdir -p $Q
python3 -W ignore tools/create_data.py occ3d-nuscenes --root-path $D --version v1.0-synthetic > $SCRATCH/convert.log 2>&1 || tail -5 $SCRATCH/convert.log
echo "infos at $((SECONDS-T0)) s"; ls $D | tr '\n' ' '
cd .gpu/lead
python3 -W ignore near.py prepare --data $D --ann radocc_infos_val.pkl --split val --pool $P/val --versions 1 --workers 4 > $SCRATCH/pv.log 2>&1 &
python3 -W ignore near.py prepare --data $D --ann radocc_infos_test.pkl --split val --pool $P/test --versions 1 --workers 4 > $SCRATCH/pt.log 2>&1 &
python3 -W ignore near.py prepare --data $D --ann radocc_infos_train.pkl --split train --pool $P/train --versions ${VERS:-3} --workers 12 > $SCRATCH/ptr.log 2>&1; wait
tail -qn 1 $SCRATCH/pv.log $SCRATCH/pt.log $SCRATCH/ptr.log; echo "pools at $((SECONDS-T0)) s"; du -sh $P | tail -1
for s in 0 1; do python3 -W ignore near.py teacher --pool $P/train --val $P/val --steps ${TSTEPS:-1200} --seed $s --device cuda --out $SCRATCH/t$s.pth > $SCRATCH/t$s.log 2>&1 & done
# baselines need no teacher
for i in $(seq ${N:-14}); do setsid nohup python3 -W ignore worker.py $Q cuda $i > $SCRATCH/worker$i.log 2>&1 & done
python3 specs.py $Q dev0 pool=$P/train val=$P/val steps=${STEPS:-1600} > /dev/null
wait %3 %4 2>/dev/null; while pgrep -f "near.py teacher" > /dev/null; do sleep .5; done
echo "teachers at $((SECONDS-T0)) s"; grep -h miou $SCRATCH/t0.log $SCRATCH/t1.log | tail -4
for k in 0 1 2 3; do python3 -W ignore near.py dump --pool $P/train --ckpt $SCRATCH/t0.pth --device cuda --part $k --parts 4 > $SCRATCH/d$k.log 2>&1 & done
while pgrep -f "near.py dump" > /dev/null; do sleep .5; done
tail -qn 1 $SCRATCH/d?.log; ls $P/train/*.t.npy | wc -l; echo "dumped at $((SECONDS-T0)) s"; python3 report.py $Q; cp $SCRATCH/t0.pth $SCRATCH/t1.pth $OUT/ 2>/dev/null; tail -qn 1 $SCRATCH/worker1.log
