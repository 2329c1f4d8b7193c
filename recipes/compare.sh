#!/usr/bin/env bash
# Short runs that differ in one thing each, 24,000 samples at 128×96 from ImageNet's trunk; results/training.md has
# the table. SHARED and INIT as in train_pose.sh; RUNS is where the runs go.
set -euo pipefail
: "${SHARED:?folder of the training data}" "${INIT:?ImageNet weights of MobileNetV2}" "${RUNS:=runs/compare}"
HERE=$(dirname "$0")
EVERYDAY=$SHARED/everyday/person_keypoints_everyday.json
COCO_WEIGHT=1
VAL=(--val-ann "$SHARED/coco/annotations/person_keypoints_val2017.json" --val-images "$SHARED/coco/val2017")
train() {
  posecli train --name "$1" --runs "$RUNS" --init "$INIT" --threads "${THREADS:-1}" --device "${DEVICE:-auto}" \
    --ann "$EVERYDAY" --images "$SHARED/everyday/images" \
    --ann "$SHARED/lspet/person_keypoints_lspet.json" --images "$SHARED/lspet/images:0.7" \
    --ann "$SHARED/coco/annotations/person_keypoints_train2017.json" --images "$SHARED/coco/train2017:$COCO_WEIGHT" \
    --stages 128x96:24000 --freeze 4 --batch-size 64 --sigma 6 --evaluate-every 1000000 "${VAL[@]}" "${@:2}"
}
train plain --learning-rate 1.5e-3 --deconv 128
train laterals --learning-rate 1.5e-3 --deconv 128,64 --laterals
train faster --learning-rate 3e-3 --deconv 128,64 --laterals
train temperature --learning-rate 1.5e-3 --deconv 128,64 --laterals --temperature 4
train narrow --learning-rate 3e-3 --deconv 128,64 --laterals --sigma 3
# Sizes of the batch, judged by everyday people that are held out.
python "$HERE/hold_out.py" "$EVERYDAY" "$RUNS/everyday"
EVERYDAY=$RUNS/everyday/train.json
COCO_WEIGHT=2
VAL=(--val-ann "$RUNS/everyday/held.json" --val-images "$SHARED/everyday/images")
train batch-64 --learning-rate 3e-3 --deconv 128,64 --laterals --batch-size 64 --ema 0.99
train batch-32 --learning-rate 2e-3 --deconv 128,64 --laterals --batch-size 32 --ema 0.995
train batch-16 --learning-rate 1.4e-3 --deconv 128,64 --laterals --batch-size 16 --ema 0.9975
