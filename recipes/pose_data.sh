# Sourced by the recipes of the pose models: data, and the commands that all of them share. SHARED holds the data that
# weights/README.md names, and PP-TinyPose's IRs under start/. RUNS receives everything that is made.
: "${SHARED:?folder of the training data}" "${RUNS:=runs}"
export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=200000000000
MORE=(--ann "$SHARED/coco/annotations/person_keypoints_train2017_more.json" --images "$SHARED/coco/train2017_more")
EVERYDAY=$RUNS/person_keypoints_everyday.json
[ -f "$EVERYDAY" ] || python "$HERE/open_sources.py" "$SHARED/everyday/person_keypoints_everyday.json" "$EVERYDAY"

pose_train() {
  posecli train --runs "$RUNS" --threads "${THREADS:-1}" --device "${DEVICE:-cpu}" --precision fp32 --batch-size 64 "$@"
}

# train NAME EVERYDAY STREET LSPET COCO OPTION...: keypoints, with the weights of the four sources.
train() {
  local name=$1 everyday=$2 street=$3 lspet=$4 coco=$5
  pose_train --name "$name" \
    --ann "$EVERYDAY" --images "$SHARED/everyday/images:$everyday" \
    --ann "$SHARED/street/person_keypoints_street.json" --images "$SHARED/street/images:$street" \
    --ann "$SHARED/lspet/person_keypoints_lspet.json" --images "$SHARED/lspet/images:$lspet" \
    --ann "$SHARED/coco/annotations/person_keypoints_train2017.json" --images "$SHARED/coco/train2017:$coco" \
    --val-ann "${MORE[1]}" --val-images "${MORE[3]}" --backbone lite_hrnet --deconv none "${@:6}"
}

# train_heads NAME INIT SIZE SAMPLES: person score and box head on the network as it is, people against what the detector takes
# for people.
train_heads() {
  local negatives=$RUNS/negatives
  if [ ! -f "$negatives/everyday_open.json" ]; then
    python "$HERE/propose_negatives.py" --data "$SHARED" --weights "${DETECTOR:-weights/person.safetensors}" --out "$negatives"
    python "$HERE/open_sources.py" "$negatives/everyday.json" "$negatives/everyday_open.json"
  fi
  pose_train --name "$1" --init "$2" --stages "$3:$4" \
    --ann "$EVERYDAY" --images "$SHARED/everyday/images" \
    --ann "$SHARED/street/person_keypoints_street.json" --images "$SHARED/street/images" \
    --ann "$SHARED/coco/annotations/person_keypoints_train2017.json" --images "$SHARED/coco/train2017" \
    --negatives "$negatives/everyday_open.json" --negative-images "$SHARED/everyday/images" \
    --negatives "$negatives/coco.json" --negative-images "$SHARED/coco/train2017" \
    --negatives "$negatives/no_people.json" --negative-images "$SHARED/negatives/images" --negatives-share 0.35 \
    --heads-only --box-head --learning-rate 2e-3 --constant-fraction 0.3 --rotation-p 0.2 --rotation 20 --scale 0.15 \
    --shift 0.05 --half-body-p 0 --truncation-p 0.2 --erasing-p 0.1 --downscale-p 0.2
}

# calibrate NAME: how far predicted standard deviations hold, fitted to people's labels on images that nothing trains on.
calibrate() {
  posecli eval "$RUNS/$1/last.safetensors" "${MORE[@]}" --out "$RUNS/$1/more"
  python "$HERE/calibrate_std.py" "$RUNS/$1/last.safetensors" "$RUNS/$1/more/metrics.json"
}
