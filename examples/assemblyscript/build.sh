#!/bin/sh
# Compiles hello.ts to the file that is named, or to target/examples/assemblyscript.wasm. $ASC is the compiler, if it is
# not to be fetched from npm.
set -e
cd "$(dirname "$0")"
to=${1:-../../target/examples/assemblyscript.wasm}
mkdir -p "$(dirname "$to")"
# Without `abort` the module imports nothing but Proxy-Wasm's functions.
${ASC:-npx --yes --package assemblyscript@0.27.37 asc} hello.ts -O3 --runtime incremental --use abort= --outFile "$to.new.wasm"
mv "$to.new.wasm" "$to"
