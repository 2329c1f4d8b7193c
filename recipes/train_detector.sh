#!/usr/bin/env bash
# The recipe of weights/person.safetensors. SHARED holds the data that weights/README.md names, with RTMDet-nano's ONNX as
# start/rtmdet_nano.onnx. Started again, it goes on.
set -euo pipefail
: "${SHARED:?folder of the training data}"
here=$(dirname "$0") out=${OUT:-runs}
mkdir -p "$out/detector-data"
python "$here/import_rtmdet.py" "$SHARED/start/rtmdet_nano.onnx" --out "$out/detector-data/start.safetensors"
# Everyday photos without the sources whose terms forbid commercial use.
everyday="$out/detector-data/person_keypoints_everyday.json"
python "$here/open_sources.py" "$SHARED/everyday/person_keypoints_everyday.json" "$everyday"
python "$here/hold_out.py" "$everyday" "$out/detector-data/everyday"
python "$here/hold_out.py" "$SHARED/street/person_keypoints_street.json" "$out/detector-data/street"
python "$here/hold_out.py" "$SHARED/negatives/person_none.json" "$out/detector-data/no_people" --share 5
posecli train-detector --runs "$out" --name person --license Apache-2.0 \
  --init "$out/detector-data/start.safetensors" --input-size 448 \
  --ann "$out/detector-data/everyday/train.json" --images "$SHARED/everyday/images" \
  --ann "$out/detector-data/street/train.json" --images "$SHARED/street/images:2" \
  --ann "$SHARED/coco/annotations/person_keypoints_train2017.json" --images "$SHARED/coco/train2017:6" \
  --ann "$out/detector-data/no_people/train.json" --images "$SHARED/negatives/images:2" \
  --samples 14000 --size 320,416,320,384,320,448 --learning-rate 2e-4 \
  --threads "${THREADS:-1}" --device "${DEVICE:-cpu}"
# The default score of the detector alone, and the input size that held-out photos asked for.
python "$here/choose_detector.py" --data "$SHARED" --weights "$out/person/person.safetensors" --input-size 448 --write 448
# The scores of a run, where the pose model verifies proposals: recipes/choose_scores.py prints what they follow from.
python "$here/choose_scores.py" --data "$SHARED" --weights "$out/person/person.safetensors" --write 0.32,0.7
