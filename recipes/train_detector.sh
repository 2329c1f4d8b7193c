#!/usr/bin/env bash
# The recipe of weights/person.safetensors: two runs and a measurement, which writes the default score. SHARED holds the
# data that weights/README.md names; INIT is torchvision's mobilenet_v2-b0353104.pth. Started again, it goes on.
set -euo pipefail
: "${SHARED:?folder of the training data}" "${INIT:?ImageNet weights of MobileNetV2}"
here=$(dirname "$0") out=${OUT:-runs/person}
train() {
  python "$here/train_detector.py" --data "$SHARED" --threads "${THREADS:-1}" --device "${DEVICE:-cpu}" "$@"
}
train --out "$out/first" --init "$INIT" --images 60000 --rate 1.2e-3 --freeze 7 --negatives 1
# On from there, with more of the trunk and more photos of nobody.
train --out "$out" --init "$out/first/person.safetensors" --images 135000 --rate 1e-3 --freeze 4 --negatives 2 --seed 1
python "$here/measure_detector.py" --data "$SHARED" --weights "$out/person.safetensors" --write
