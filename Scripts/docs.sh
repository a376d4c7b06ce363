#!/usr/bin/env bash
# Makes the reference of the public API, as static files for any web server or `python3 -m http.server`:
#   Scripts/docs.sh FOLDER FLAGS…     FLAGS are those of `swift build`, so that nothing is built twice
set -euo pipefail
cd "$(dirname "$0")/.."
output=$1
shift
mkdir -p "$(dirname "$output")"
swift package "$@" --allow-writing-to-directory "$output" \
  generate-documentation --target Mobula --target MobulaCore --enable-experimental-combined-documentation \
  --warnings-as-errors --disable-indexing --transform-for-static-hosting --output-path "$output"
echo "$output/documentation/index.html: the reference. Show it with: python3 -m http.server -d $output"
