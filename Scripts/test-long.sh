#!/usr/bin/env bash
# What takes long: the tests of Tests/Long, and those of the suites that do more with MOBULA_LONG_TESTS. Some hours in all.
# Takes names of scripts in Tests/Long, or `suites`; all of them without. The flags of `swift build` are in SWIFT_FLAGS.
set -euo pipefail
cd "$(dirname "$0")/.."
read -ra flags <<<"${SWIFT_FLAGS:--c release -Xswiftc -enable-testing}"
status=0
scripts=() suites=
for name in "$@"; do
  if [[ $name == suites ]]; then suites=yes; else scripts+=("$name"); fi
done
if (($# == 0)); then suites=yes; fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT

swift build "${flags[@]}" --build-tests
if [[ $# -eq 0 || " ${scripts[*]} " == *" s3-servers "* ]]; then
  Scripts/python-environment.sh .venv-servers servers || echo "Without its servers s3-servers is skipped, see above." >&2
fi
if [[ ${#scripts[@]} -gt 0 || $# -eq 0 ]]; then
  MOBULA=.build/release/mobula Tests/Trials/run --folder Tests/Long "${scripts[@]}" 2>&1 | tee -a "$log" || status=$?
fi
if [[ $suites ]]; then
  # One after the other, as in Scripts/test.sh.
  MOBULA_LONG_TESTS=1 swift test "${flags[@]}" --skip-build --no-parallel 2>&1 | tee -a "$log" || status=$?
fi

Scripts/summary.sh "$log" "$status" "Long: "
