#!/usr/bin/env bash
# The recipe of weights/person.safetensors, in two runs and a measurement. SHARED holds the data that weights/README.md
# names; INIT is torchvision's mobilenet_v2-b0353104.pth. Interrupted and started again, it goes on.
set -euo pipefail
: "${SHARED:?folder of the training data}" "${INIT:?ImageNet weights of MobileNetV2}"
here=$(dirname "$0") out=${OUT:-runs} options="--threads ${THREADS:-1} --device ${DEVICE:-cpu}"
# From ImageNet.
python "$here/train_detector.py" --data "$SHARED" --init "$INIT" --out "$out/person-first" \
  --images 60000 --rate 1.2e-3 --freeze 7 --negatives 1 $options
# On: more photos of nobody, at a lower rate, only the last blocks of the trunk.
python "$here/train_detector.py" --data "$SHARED" --init "$out/person-first/person.safetensors" --out "$out/person" \
  --images 16000 --rate 4e-4 --freeze 14 --negatives 4 $options
python "$here/measure_detector.py" --data "$SHARED" --weights "$out/person/person.safetensors" --write
