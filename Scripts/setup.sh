#!/usr/bin/env bash
# Makes sure that everything is here that building and running needs; installs it
# where this user may, and otherwise says exactly what is missing.
set -euo pipefail

if ! command -v swift >/dev/null; then
  echo "Swift 6.2 or later is needed: install it from https://www.swift.org/install/linux/ and put it on the PATH." >&2
  exit 1
fi
version=$(swift --version 2>/dev/null | sed -nE 's/.*Swift version ([0-9]+)\.([0-9]+).*/\1 \2/p' | head -n 1)
read -r major minor <<<"${version:-0 0}"
if ((major < 6 || major == 6 && minor < 2)); then
  echo "Swift 6.2 or later is needed, and this is ${major}.${minor}: install a newer one from https://www.swift.org/install/linux/." >&2
  exit 1
fi
if ! command -v python3 >/dev/null; then
  echo "Python 3 is needed for the S3 server of demo and tests: apt-get install python3 python3-venv" >&2
  exit 1
fi

# Installs packages where this user may.
install() {
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
  for attempt in 1 2 3; do
    if { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@"; } >/dev/null; then
      return 0
    fi
    sleep 3
  done
  return 1
}

# The head's journal is SQLite's: its header and its library.
has_sqlite() {
  local folder status=0
  folder=$(mktemp -d)
  printf '#include <sqlite3.h>\nint main(void) { return sqlite3_libversion_number() == 0; }\n' >"$folder/try.c"
  clang "$folder/try.c" -lsqlite3 -o "$folder/try" 2>/dev/null || status=1
  rm -r "$folder"
  return "$status"
}
if ! has_sqlite; then
  if ! { install libsqlite3-dev && has_sqlite; }; then
    echo "SQLite's development files are needed: apt-get install libsqlite3-dev" >&2
    exit 1
  fi
fi

# Emulated hosts need ip, tc, unshare, nsenter and setpriv.
PATH=$PATH:/usr/sbin:/sbin
missing=()
for tool in ip tc; do command -v "$tool" >/dev/null || missing+=(iproute2); done
for tool in unshare nsenter setpriv; do command -v "$tool" >/dev/null || missing+=(util-linux); done
((${#missing[@]} == 0)) && exit 0
mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
install "${missing[@]}" && exit 0
echo "Without ${missing[*]} hosts are emulated as processes on loopback, unshaped: apt-get install ${missing[*]}" >&2
