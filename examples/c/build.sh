#!/bin/sh
# Compiles hello.c to the file that is named, or to target/examples/c.wasm.
set -e
cd "$(dirname "$0")"
to=${1:-../../target/examples/c.wasm}
mkdir -p "$(dirname "$to")"
# Without a standard library; the linker drops what is neither exported nor used.
clang --target=wasm32-unknown-unknown -std=c11 -O2 -Wall -Wextra -Wno-unused-parameter -Werror \
    -nostdlib -ffreestanding -fno-builtin -Wl,--no-entry -Wl,--strip-debug -o "$to.new" hello.c
mv "$to.new" "$to"
