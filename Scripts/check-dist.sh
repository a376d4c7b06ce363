#!/usr/bin/env bash
# Tries an archive of `make dist` in bare roots of Debian 12 and 13, made with debootstrap in a temporary folder:
#   Scripts/check-dist.sh dist/mobula-VERSION-linux-x86_64.tar.gz [SUITE ...]
set -euo pipefail
archive=$(realpath "$1")
shift
suites=("$@")
((${#suites[@]})) || suites=(bookworm trixie)
if [[ $(id -u) != 0 ]]; then
  echo "Skipped: only root can make a root of Debian."
  exit 0
fi
if ! command -v debootstrap >/dev/null; then
  echo "Skipped: debootstrap is not installed."
  exit 0
fi
# What the machine's own packages come from, else Debian's.
mirror=${DEBIAN_MIRROR:-$(
  cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null |
    grep -oE 'https?://[^ ]+/debian/?( |$)' | head -n 1 | tr -d ' ' || true
)}
mirror=${mirror:-https://deb.debian.org/debian}
work=$(mktemp -d)
finish() {
  local status=$?
  trap - EXIT
  rm -rf --one-file-system "$work"
  exit "$status"
}
trap finish EXIT

for suite in "${suites[@]}"; do
  root=$work/$suite
  if ! debootstrap --variant=minbase "$suite" "$root" "$mirror" >"$work/log" 2>&1; then
    echo "Skipped $suite: no root could be made of $mirror ($(tail -n 1 "$work/log"))."
    continue
  fi
  cp "$archive" "$root/root/mobula.tar.gz"
  # Processes, mounts and network of its own: what is started ends with it.
  unshare --mount --pid --net --fork --kill-child bash -s "$root" <<'SCRIPT'
set -euo pipefail
root=$1
mount --make-rprivate /
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
mkdir -p "$root/dev/shm"
ip link set lo up 2>/dev/null || true
exec chroot "$root" /bin/bash -euo pipefail -c '
  export HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
  cd /root
  tar -xzf mobula.tar.gz
  ./mobula-*/install.sh
  mobula --version
  head -c 5000000 /dev/urandom >model.bin
  mobula start --head --capacity 64MB
  mobula put model.bin
  mobula get model.bin -o copy.bin
  cmp model.bin copy.bin
  mobula ls
  mobula stop
  mobula status >/dev/null 2>&1 && { echo "It still runs." >&2; exit 1; }
  true
'
SCRIPT
  echo "$suite: starts, puts, gets and stops in a bare root."
done
