#!/usr/bin/env bash
# The recipe of weights/pose.safetensors. SHARED holds the data that weights/README.md names, and PP-TinyPose's
# IR under start/. One CPU thread: 19, 51 and 32 minutes beside other work.
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
train whole 0.3 0.5 0.5 5 --init "$RUNS/head/last.safetensors" --teacher "$RUNS/head/last.safetensors" \
  --teacher-weight 0.5 --stages 256x192:48000 --learning-rate 4e-4 --backbone-lr-factor 0.15 --constant-fraction 0.4 --weak-share 0.4 \
  --scale 0.3 --rotation 35 --evaluate-every 8000 "$@"
# The person score and the box head, on the network as it is: people against what a detector takes for people.
NEGATIVES=$RUNS/negatives
python "$HERE/propose_negatives.py" --data "$SHARED" --weights "${DETECTOR:-weights/person.safetensors}" --out "$NEGATIVES"
python "$HERE/open_sources.py" "$NEGATIVES/everyday.json" "$NEGATIVES/everyday_open.json"
posecli train --name pose --runs "$RUNS" --threads "${THREADS:-1}" --device "${DEVICE:-cpu}" --precision fp32 \
  --ann "$EVERYDAY" --images "$SHARED/everyday/images" \
  --ann "$SHARED/street/person_keypoints_street.json" --images "$SHARED/street/images" \
  --ann "$SHARED/coco/annotations/person_keypoints_train2017.json" --images "$SHARED/coco/train2017" \
  --negatives "$NEGATIVES/everyday_open.json" --negative-images "$SHARED/everyday/images" \
  --negatives "$NEGATIVES/coco.json" --negative-images "$SHARED/coco/train2017" \
  --negatives "$NEGATIVES/no_people.json" --negative-images "$SHARED/negatives/images" --negatives-share 0.35 \
  --init "$RUNS/whole/last.safetensors" --heads-only --box-head --stages 256x192:40000 --batch-size 64 \
  --learning-rate 2e-3 --constant-fraction 0.3 --rotation-p 0.2 --rotation 20 --scale 0.15 --shift 0.05 --half-body-p 0 \
  --truncation-p 0.2 --erasing-p 0.1 --downscale-p 0.2
# How far predicted standard deviations hold is fitted to people's labels, on images that nothing trains on.
posecli eval "$RUNS/pose/last.safetensors" --ann "$SHARED/coco/annotations/person_keypoints_train2017_more.json" \
  --images "$SHARED/coco/train2017_more" --out "$RUNS/more"
python "$HERE/calibrate_std.py" "$RUNS/pose/last.safetensors" "$RUNS/more/metrics.json"
