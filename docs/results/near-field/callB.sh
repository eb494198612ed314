#!/usr/bin/env bash
# Infos, pools, teacher, its logits; starts the students' workers.
set -u; export OMP_NUM_THREADS=1 PYTHONUNBUFFERED=1 RADOCC_ROOT=$PWD PYTHONPATH=$PWD:${PYTHONPATH:-} TMPDIR=/tmp
[ "${MPS:-1}" = 1 ] && export CUDA_MPS_PIPE_DIRECTORY=/tmp/mps CUDA_MPS_LOG_DIRECTORY=/tmp/mpslog
T0=$SECONDS; D=/dev/shm/w; P=/dev/shm/p; Q=/tmp/q; mkdir -p $Q
python3 -W ignore tools/create_data.py occ3d-nuscenes --root-path $D --version v1.0-synthetic > /tmp/convert.log 2>&1 || tail -5 /tmp/convert.log
echo "infos at $((SECONDS-T0)) s"; ls $D | tr '\n' ' '
cd .gpu/lead
python3 -W ignore near.py prepare --data $D --ann radocc_infos_val.pkl --split val --pool $P/val --versions 1 --workers 4 > /tmp/pv.log 2>&1 &
python3 -W ignore near.py prepare --data $D --ann radocc_infos_test.pkl --split val --pool $P/test --versions 1 --workers 4 > /tmp/pt.log 2>&1 &
python3 -W ignore near.py prepare --data $D --ann radocc_infos_train.pkl --split train --pool $P/train --versions ${VERS:-3} --workers 12 > /tmp/ptr.log 2>&1; wait
tail -qn 1 /tmp/pv.log /tmp/pt.log /tmp/ptr.log; echo "pools at $((SECONDS-T0)) s"; du -sh $P | tail -1
for s in 0 1; do python3 -W ignore near.py teacher --pool $P/train --val $P/val --steps ${TSTEPS:-1200} --seed $s --device cuda --out /tmp/t$s.pth > /tmp/t$s.log 2>&1 & done
# baselines need no teacher
for i in $(seq ${N:-14}); do setsid nohup python3 -W ignore worker.py $Q cuda $i > /tmp/worker$i.log 2>&1 & done
python3 specs.py $Q dev0 pool=$P/train val=$P/val steps=${STEPS:-1600} > /dev/null
wait %3 %4 2>/dev/null; while pgrep -f "near.py teacher" > /dev/null; do sleep .5; done
echo "teachers at $((SECONDS-T0)) s"; grep -h miou /tmp/t0.log /tmp/t1.log | tail -4
for k in 0 1 2 3; do python3 -W ignore near.py dump --pool $P/train --ckpt /tmp/t0.pth --device cuda --part $k --parts 4 > /tmp/d$k.log 2>&1 & done
while pgrep -f "near.py dump" > /dev/null; do sleep .5; done
tail -qn 1 /tmp/d?.log; ls $P/train/*.t.npy | wc -l; echo "dumped at $((SECONDS-T0)) s"; python3 report.py $Q; cp /tmp/t0.pth /tmp/t1.pth $OUT/ 2>/dev/null; tail -qn 1 /tmp/worker1.log
