#!/usr/bin/env bash
# Prints the licences of the packages that a build is linked with: notices.sh SCRATCH-FOLDER
set -euo pipefail
scratch=$1
echo "The tool is linked with the Swift runtime and Foundation (swift.org, Apache License 2.0 with Runtime Library"
echo "Exception), SQLite (public domain), zlib (zlib License), ICU (Unicode License V3), and these packages:"
for package in "$scratch"/checkouts/*/; do
  name=$(basename "$package")
  # These make documentation, and are linked with nothing.
  case $name in swift-docc-*) continue ;; esac
  printf '\n================ %s\n\n' "$name"
  files=$(find "$package" -maxdepth 1 -type f \( -iname 'LICENSE*' -o -iname 'NOTICE*' -o -iname 'COPYING*' \) | sort)
  if [[ -z $files ]]; then
    echo "$name has no licence in its folder." >&2
    exit 1
  fi
  while read -r file; do
    cat "$file"
    echo
  done <<<"$files"
done
