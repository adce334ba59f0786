#!/bin/sh
# On each machine: MAIN=host-0 MACHINES=2 MACHINE=0 sh examples/torchrun.sh
exec torchrun --nnodes "$MACHINES" --node_rank "$MACHINE" --nproc_per_node 8 --master_addr "$MAIN" --master_port 29500 -m selfcascade.cli train --method upsamplers --preset micro --model stable-diffusion-v1-5/stable-diffusion-v1-5 --train_data "laion/*.tar" --resolution 1024 --mixed_precision bf16 --output_dir runs/micro
