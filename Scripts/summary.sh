#!/usr/bin/env bash
# Closes a run of tests with their counts: summary.sh LOG STATUS [PREFIX]. Its own status says whether all is well.
# Skipped tests say why, and are counted: none of them may look as if it had passed.
set -euo pipefail
log=$1 status=$2 prefix=${3:-}
# The line that closes a run is none of its tests.
passed=$(grep -E '^(✔|.*) Test .* passed after|^PASS ' "$log" | grep -vc ' Test run with ' || true)
failed=$(grep -E '^(✘|.*) Test .* failed after|^FAIL ' "$log" | grep -vc ' Test run with ' || true)
skipped=$(grep -cE '^(➜|.*) Test .* skipped|^SKIP ' "$log" || true)
if ((status != 0 && failed == 0)); then failed=1; fi
if ((passed == 0)); then
  echo "No test ran." >&2
  status=1
fi
echo "$prefix$passed passed, $failed failed, $skipped skipped"
exit "$status"
