#!/usr/bin/env bash
# The recipe of weights/person.safetensors: a run and a measurement, which writes the default score. SHARED holds the
# data that weights/README.md names; INIT is torchvision's mobilenet_v2-b0353104.pth. Started again, it goes on.
set -euo pipefail
: "${SHARED:?folder of the training data}" "${INIT:?ImageNet weights of MobileNetV2}"
here=$(dirname "$0") out=${OUT:-runs/person}
python "$here/train_detector.py" --data "$SHARED" --init "$INIT" --out "$out" --images 60000 --rate 1.2e-3 --freeze 7 \
  --negatives 1 --threads "${THREADS:-1}" --device "${DEVICE:-cpu}"
python "$here/measure_detector.py" --data "$SHARED" --weights "$out/person.safetensors" --write
