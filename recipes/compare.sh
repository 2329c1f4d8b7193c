#!/usr/bin/env bash
# One short run for each setting, all else equal; then `posecli eval` compares them on the validation people.
# SHARED and INIT as in train_pose.sh; RUNS is where the runs go.
set -euo pipefail
: "${SHARED:?folder of the training data}" "${INIT:?ImageNet weights of MobileNetV2}" "${RUNS:=runs/compare}"
common=(--runs "$RUNS" --init "$INIT" --threads "${THREADS:-1}" --device "${DEVICE:-auto}"
  --ann "$SHARED/everyday/person_keypoints_everyday.json" --images "$SHARED/everyday/images"
  --ann "$SHARED/lspet/person_keypoints_lspet.json" --images "$SHARED/lspet/images:0.7"
  --ann "$SHARED/coco/annotations/person_keypoints_train2017.json" --images "$SHARED/coco/train2017"
  --stages 128x96:16000 --freeze 7 --batch-size 32 --rate 1e-3 --flat-share 0.5 --weak-share 0.4
  --scale 0.3 --rotation 40 --rotation-p 0.4 --dropout-p 0.1)
train() { posecli train --name "$1" "${common[@]}" "${@:2}"; }
train sigma3 --sigma 3
train sigma2 --sigma 2
train beta10 --sigma 3 --temperature 10
train deconv0 --sigma 3 --deconv none
train deconv2 --sigma 3 --deconv 128,128
