#!/usr/bin/env bash
# What half an hour of a large GPU is used for: SimCC's own network (ResNet-50, three transposed convolutions, 256x192),
# then Lite-HRNet with it as the teacher. The machine needs python3 with torch, torchvision, numpy, OpenCV, safetensors and click.
#
#   python recipes/gpu_train.py pack --data SHARED --out packs --height 192 --file-mib 40     # where the data is
#   bash recipes/train_gpu.sh flagship      # 17 minutes; again to go on
#   bash recipes/train_gpu.sh pose          # 9 minutes
#   bash recipes/train_gpu.sh rest flagship 4   # the parts of a run from the fifth on, where all exceed 60 MiB
#
# Files that are to be kept are copied into OUT, in parts of at most 15 MiB, 60 MiB a call. On another machine FROM, a folder
# of such parts, resumes a run. Both runs are shortened by MINUTES.
set -euo pipefail
: "${PACKS:=packs}" "${RUNS:=runs}" "${OUT:=back}"
HERE=$(cd "$(dirname "$0")" && pwd)
export PYTHONPATH="$HERE/.." PYTHONUNBUFFERED=1
gpu_train() { python3 "$HERE/gpu_train.py" "$@"; }

case ${1:?flagship, pose or rest} in
  flagship)
    # Without --init all layers begin at random; a file of ImageNet weights (torchvision's resnet50) saves about half of the run.
    gpu_train train flagship --packs "$PACKS" --runs "$RUNS" --minutes "${MINUTES:-17}" --samples "${SAMPLES:-3000000}" \
      --device "${DEVICE:-cuda}" --workers "${WORKERS:-8}" ${INIT:+--init "$INIT"} ${FROM:+--from "$FROM"}
    gpu_train collect "$RUNS/flagship/parts" --out "$OUT" ;;
  pose)
    gpu_train train pose --packs "$PACKS" --runs "$RUNS" --minutes "${MINUTES:-9}" --samples "${SAMPLES:-1000000}" \
      --init "${INIT:-$HERE/../weights/pose.safetensors}" --teacher "${TEACHER:-$RUNS/flagship/last.safetensors}" \
      --device "${DEVICE:-cuda}" --workers "${WORKERS:-8}" ${FROM:+--from "$FROM"}
    gpu_train collect "$RUNS/pose/parts" --out "$OUT" ;;
  rest) gpu_train collect "$RUNS/$2/parts" --out "$OUT" --skip "$3" ;;
  *) echo "flagship, pose or rest" >&2; exit 2 ;;
esac
