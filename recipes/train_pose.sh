#!/usr/bin/env bash
# The recipe of weights/pose.safetensors. One CPU thread: 19, 51 and 32 minutes beside other work.
set -euo pipefail
HERE=$(dirname "$0")
source "$HERE/pose_data.sh"
python "$HERE/import_lite_hrnet.py" "$SHARED/start/tinypose_256x192.xml" --out "$RUNS/start.safetensors"
# The classifiers and the convolution to the maps, on the frozen backbone.
train head 0.5 0.5 1 3 --init "$RUNS/start.safetensors" --freeze 5 --stages 256x192:48000 --learning-rate 1.5e-3 \
  --constant-fraction 0.3 --weak-share 0.3 --evaluate-every 16000
# All layers, people's labels first, held near to the first run's distributions.
train whole 0.3 0.5 0.5 5 --init "$RUNS/head/last.safetensors" --teacher "$RUNS/head/last.safetensors" \
  --teacher-weight 0.5 --stages 256x192:48000 --learning-rate 4e-4 --backbone-lr-factor 0.15 --constant-fraction 0.4 \
  --weak-share 0.4 --scale 0.3 --rotation 35 --evaluate-every 8000
train_heads pose "$RUNS/whole/last.safetensors" 256x192 40000
calibrate pose
