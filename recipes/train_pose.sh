#!/usr/bin/env bash
# The recipe of weights/pose.safetensors, in six runs and two last steps. SHARED holds the data that weights/README.md
# names; INIT is torchvision's mobilenet_v2-b0353104.pth.
set -euo pipefail
: "${SHARED:?folder of the training data}" "${INIT:?ImageNet weights of MobileNetV2}" "${NOBODY:?photos of nobody}" "${RUNS:=runs}"
# On a CPU each step takes and frees the same large tensors: glibc should keep that memory, not map it anew each time.
export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=200000000000
HERE=$(dirname "$0")
EVERYDAY=$SHARED/everyday/person_keypoints_everyday.json
VAL=(--val-ann "$SHARED/coco/annotations/person_keypoints_val2017.json" --val-images "$SHARED/coco/val2017")
train() {
  local name=$1 lspet_weight=$2 coco_weight=$3
  posecli train --name "$name" --runs "$RUNS" --threads "${THREADS:-2}" --device "${DEVICE:-auto}" \
    --ann "$EVERYDAY" --images "$SHARED/everyday/images" \
    --ann "$SHARED/lspet/person_keypoints_lspet.json" --images "$SHARED/lspet/images:$lspet_weight" \
    --ann "$SHARED/coco/annotations/person_keypoints_train2017.json" --images "$SHARED/coco/train2017:$coco_weight" \
    --backbone mobilenet_v2 --split-ratio 2 --sigma 6 --batch-size 64 --freeze 4 \
    --scale 0.35 --rotation 45 --rotation-p 0.5 --half-body-p 0.15 --erasing-p 0.2 "${VAL[@]}" "${@:4}"
}
# From ImageNet's trunk, one transposed convolution.
train pose-first 0.7 1 --init "$INIT" --downscale-p 0 --deconv 128 --learning-rate 1.5e-3 --stages 128x96:190000,256x192:60000
# From the first run's trunk, with a new head: two transposed convolutions with laterals.
train pose-second 0.7 2 --init "$RUNS/pose-first/last.safetensors" --downscale-p 0 --deconv 128,64 --laterals \
  --learning-rate 2.5e-3 --stages 128x96:200000,256x192:100000
# On from there at full size. What was chosen on the way was chosen by the everyday photos held out here.
python "$HERE/hold_out.py" "$EVERYDAY" "$RUNS/everyday"
EVERYDAY=$RUNS/everyday/train.json
VAL=(--val-ann "$RUNS/everyday/held.json" --val-images "$SHARED/everyday/images")
train pose-third 0.5 3 --init "$RUNS/pose-second/last.safetensors" --downscale-p 0 --deconv 128,64 --laterals \
  --learning-rate 2.1e-3 --constant-fraction 0.45 --weak-share 0.25 --stages 256x192:380000
train pose-fourth 0.5 3 --init "$RUNS/pose-third/last.safetensors" --downscale-p 0 --deconv 128,64 --laterals \
  --learning-rate 1.3e-3 --seed 1 --constant-fraction 0.25 --weak-share 0.5 --stages 256x192:48000
# People who are hidden or cut off more often, and small ones, as the photos of a training set of sport show too few.
train pose-fifth 0.5 3 --init "$RUNS/pose-fourth/last.safetensors" --truncation-p 0.4 --downscale-p 0.3 --deconv 128,64 --laterals \
  --learning-rate 2.1e-3 --seed 2 --constant-fraction 0.45 --weak-share 0.25 --stages 256x192:490000
# The same again.
train pose 0.5 3 --init "$RUNS/pose-fifth/last.safetensors" --truncation-p 0.4 --downscale-p 0.3 --deconv 128,64 --laterals \
  --learning-rate 2.1e-3 --seed 4 --constant-fraction 0.45 --weak-share 0.25 --stages 256x192:300000 "$@"
# Whether there is a person at all, and where it ends. NOBODY: the photos that photos_of_nobody.py copies.
python "$HERE/fit_presence.py" --data "$SHARED" --nobody "$NOBODY" --pose "$RUNS/pose/last.safetensors" \
  --out "$RUNS/pose/judging.safetensors"
python "$HERE/fit_extent.py" --data "$SHARED" --pose "$RUNS/pose/judging.safetensors" --out "$RUNS/pose/pose.safetensors"
