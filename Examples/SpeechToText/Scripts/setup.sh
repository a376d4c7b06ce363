#!/usr/bin/env bash
# Makes sure that the libraries and the clips are here; installs them where this user may, and otherwise says what is
# missing. With --check it installs nothing, says nothing, and fails if something is missing.
set -euo pipefail

clips=/usr/share/pocketsphinx/test/data/librivox/transcription
missing=()
command -v pkg-config >/dev/null || missing+=(pkg-config)
pkg-config --exists openblas 2>/dev/null || missing+=(libopenblas-dev)
pkg-config --exists sndfile 2>/dev/null || missing+=(libsndfile1-dev)
[[ -f $clips ]] || missing+=(pocketsphinx-testdata)
((${#missing[@]})) || exit 0
[[ ${1:-} == --check ]] && exit 1
if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
  for attempt in 1 2 3; do
    if { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}"; } >/dev/null; then
      exit 0
    fi
    sleep 3
  done
fi
echo "The speech example needs ${missing[*]}: run 'apt-get install ${missing[*]}' as root, then try again." >&2
exit 1
