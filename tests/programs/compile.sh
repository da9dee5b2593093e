#!/bin/sh
# Compiles a quantized network by the vendor's program: compile.sh NET BUILD_DIR
set -e
ARCH=/opt/vitis_ai/compiler/arch/DPUCVDX8H/VCK50008PE/arch.json
vai_c_xir --xmodel "$2/quant_model/$1_int.xmodel" --arch "$ARCH" \
    --net_name "$1" --output_dir "$2/compiled"
