#!/usr/bin/env bash
# The recipe of weights/pose-lite-hrnet.safetensors. SHARED holds the data that weights/README.md names, and PP-TinyPose's
# IR under start/. One CPU thread: 19 and 51 minutes beside other work.
set -euo pipefail
: "${SHARED:?folder of the training data}" "${RUNS:=runs}"
export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=200000000000
HERE=$(dirname "$0")
EVERYDAY=$RUNS/person_keypoints_everyday.json
python "$HERE/open_sources.py" "$SHARED/everyday/person_keypoints_everyday.json" "$EVERYDAY"
python "$HERE/import_lite_hrnet.py" "$SHARED/start/tinypose_256x192.xml" --out "$RUNS/start.safetensors"
train() {
  local name=$1 everyday=$2 street=$3 lspet=$4 coco=$5
  posecli train --name "$name" --runs "$RUNS" --threads "${THREADS:-1}" --device "${DEVICE:-cpu}" --precision fp32 \
    --ann "$EVERYDAY" --images "$SHARED/everyday/images:$everyday" \
    --ann "$SHARED/street/person_keypoints_street.json" --images "$SHARED/street/images:$street" \
    --ann "$SHARED/lspet/person_keypoints_lspet.json" --images "$SHARED/lspet/images:$lspet" \
    --ann "$SHARED/coco/annotations/person_keypoints_train2017.json" --images "$SHARED/coco/train2017:$coco" \
    --val-ann "$SHARED/coco/annotations/person_keypoints_train2017_more.json" \
    --val-images "$SHARED/coco/train2017_more" \
    --backbone lite_hrnet --deconv none --batch-size 64 "${@:6}"
}
# The classifiers and the convolution to the maps, on the frozen backbone.
train head 0.5 0.5 1 3 --init "$RUNS/start.safetensors" --freeze 5 --stages 256x192:48000 --learning-rate 1.5e-3 \
  --constant-fraction 0.3 --weak-share 0.3 --evaluate-every 16000
# Everything, people's labels first, held near to the first run's distributions.
train pose-lite-hrnet 0.3 0.5 0.5 5 --init "$RUNS/head/last.safetensors" --teacher "$RUNS/head/last.safetensors" \
  --teacher-weight 0.5 --stages 256x192:48000 --learning-rate 4e-4 --backbone-lr-factor 0.15 --constant-fraction 0.4 --weak-share 0.4 \
  --scale 0.3 --rotation 35 --evaluate-every 8000 "$@"
