#!/bin/sh
# The bundled models from nothing, each step going on where it was cut. Usage: recipe.sh BIN_DIRECTORY
set -eu
bin=$1
workers=$(nproc)
trainers=$("$bin/python" -c "import os, torch; print(torch.cuda.device_count() or os.cpu_count())")
parallel() { # one process a core, each with its share of the work
    part=0 started=
    while [ "$part" -lt "$workers" ]; do
        OMP_NUM_THREADS=1 "$bin/python" "$1" "$part" "$workers" &
        started="$started $!" part=$((part + 1))
    done
    for process in $started; do wait "$process"; done # a plain wait would forget who failed
}
parallel pictures.py
OMP_NUM_THREADS=1 "$bin/python" autoencoder.py
OMP_NUM_THREADS=1 "$bin/python" reader.py
OMP_NUM_THREADS=1 "$bin/python" detector.py
OMP_NUM_THREADS=1 "$bin/torchrun" --nproc-per-node "$trainers" base.py
"$bin/python" export.py
"$bin/python" upsamplers.py
OMP_NUM_THREADS=1 "$bin/python" super_resolver.py
OMP_NUM_THREADS=1 "$bin/python" video_detector.py
OMP_NUM_THREADS=1 "$bin/torchrun" --nproc-per-node "$trainers" video.py
parallel evaluate.py
"$bin/python" evaluate.py report
