#!/usr/bin/env bash
# Builds all, checks the formatting, runs all tests, and closes with their counts.
# Takes the flags of `swift build`; the same ones as the tool is built with.
set -euo pipefail
cd "$(dirname "$0")/.."
log=$(mktemp)
trap 'rm -f "$log"' EXIT

swift format lint --strict -r Sources Tests Benchmarks Package.swift
swift build "$@" --build-tests
# One after the other: many start processes, and the machine may have two cores.
status=0
swift test "$@" --skip-build --no-parallel 2>&1 | tee "$log" || status=$?

# Skipped tests say why, and are counted: none of them may look as if it had passed.
passed=$(grep -cE '^(✔|.*) Test .* passed after' "$log" || true)
failed=$(grep -cE '^(✘|.*) Test .* failed after' "$log" || true)
skipped=$(grep -cE '^(➜|.*) Test .* skipped' "$log" || true)
if ((status != 0 && failed == 0)); then failed=1; fi
if ((passed == 0)); then
  echo "No test ran." >&2
  status=1
fi
echo "$passed passed, $failed failed, $skipped skipped"
exit "$status"
