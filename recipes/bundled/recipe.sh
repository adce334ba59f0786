#!/bin/sh
# The bundled models from nothing, each step going on where it was cut. Usage: recipe.sh BIN_DIRECTORY
set -eu
bin=$1
workers=$(nproc)
# Batches are shared by a number of processes that divides them.
trainers=$("$bin/python" -c "
import os, torch
count = torch.cuda.device_count() or os.cpu_count()
print(next(number for number in (4, 2, 1) if number <= count))")
parallel() { # one process a core, each with its share of the work
    part=0 started=
    while [ "$part" -lt "$workers" ]; do
        OMP_NUM_THREADS=1 "$bin/python" "$1" "$part" "$workers" &
        started="$started $!" part=$((part + 1))
    done
    for process in $started; do wait "$process"; done # a plain wait would forget who failed
}
train() { OMP_NUM_THREADS=1 "$bin/torchrun" --nproc-per-node "$trainers" "$1"; }
parallel pictures.py
train autoencoder.py
parallel latents.py
OMP_NUM_THREADS=1 "$bin/python" reader.py
OMP_NUM_THREADS=1 "$bin/python" collage_reader.py --ship
OMP_NUM_THREADS=1 "$bin/python" detector.py
train base.py
"$bin/python" export.py
"$bin/python" upsamplers.py
train super_resolver.py
train video_detector.py
train video.py
parallel evaluate.py
"$bin/python" evaluate.py report
