#!/usr/bin/env bash
# SCRATCH: a folder for logs and queue; SHM: one in memory for world and pools.
# Draw the world on the CPUs while smoke runs of students time the GPU.
set -u; export OMP_NUM_THREADS=1 PYTHONUNBUFFERED=1 RADOCC_ROOT=$PWD PYTHONPATH=$PWD:${PYTHONPATH:-}
T0=$SECONDS; D=$SHM/w; Q=$SCRATCH/qs
setsid nohup python3 -W ignore -c "
from radocc_plugin.synthetic import generate
generate('$D', scenes_train=60, scenes_val=12, scenes_test=16, frames=6, image_size=(400,225), sweeps=1, workers=16, progress=False)
print('drawn')
" > $SCRATCH/world.log 2>&1 &
cd .gpu/lead; ls -la $SHM | head -3; df -h $SHM | tail -1; free -g | head -2
P=$PWD/pool; python3 specs.py $Q list pool=$P/train val=$P/val steps=${STEPS:-140} 'runs=[["base",360,0],["v1",360,0],["paper",360,0],["light",12,1]]'
timeout 100 python3 -W ignore worker.py $Q cuda 0 & W=$!
while [ $(ls $Q/*.result $Q/*.error 2>/dev/null | wc -l) -lt 4 ] && kill -0 $W 2>/dev/null && [ $((SECONDS-T0)) -lt 90 ]; do sleep 1; done; touch $Q/stop
echo "smoke done at $((SECONDS-T0)) s"; grep -h "ms/step\|miou" $Q/*.log; cat $Q/*.error 2>/dev/null | tail -8; python3 report.py $Q
# MPS
if [ "${MPS:-1}" = 1 ]; then export CUDA_MPS_PIPE_DIRECTORY=$SCRATCH/mps CUDA_MPS_LOG_DIRECTORY=$SCRATCH/mpslog; mkdir -p $SCRATCH/mps $SCRATCH/mpslog; setsid nvidia-cuda-mps-control -d; sleep 1; timeout 20 python3 -c "import torch; print('mps cuda', torch.ones(2,device='cuda').sum().item())" || echo "no mps"; fi
while [ $((SECONDS-T0)) -lt ${WAIT:-130} ] && ! grep -q "drawn\|Error" $SCRATCH/world.log; do sleep 1; done
echo "world at $((SECONDS-T0)) s"; tail -3 $SCRATCH/world.log; ls $D $D/.finished_scenes 2>/dev/null | tail -3; nvidia-smi --query-gpu=name,memory.used --format=csv,noheader
