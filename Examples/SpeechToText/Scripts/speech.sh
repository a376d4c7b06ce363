#!/usr/bin/env bash
# Shows a speech model going from S3 through three hosts' memory to actors that transcribe:
#   MODEL=FOLDER  another model than Whisper tiny.en     CLIPS=FOLDER  other clips with their text
#   JSON=FILE     the figures                            BEAMS=N       how many texts are followed at once
set -euo pipefail
cd "$(dirname "$0")/.."
root=$(cd ../.. && pwd)
mobula=$root/.build/release/mobula
speech=$root/.build/release/mobula-speech
work=$(mktemp -d /tmp/mobula-speech.XXXXXX)
server=

finish() {
  local status=$?
  trap - EXIT
  trap '' INT TERM
  for host in 3 2 1; do
    [[ -d $work/host$host ]] && MOBULA_DIRECTORY=$work/host$host "$mobula" stop >/dev/null 2>&1 || true
  done
  [[ -n $server ]] && kill "$server" 2>/dev/null && wait "$server" 2>/dev/null || true
  rm -rf "$work"
  exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

folder=${MODEL:-}
if [[ -z $folder ]]; then
  folder=$root/results/whisper-tiny.en
  Scripts/model.sh "$folder"
fi
[[ -d $folder ]] || { echo "$folder is no folder: MODEL is a model's folder." >&2; exit 1; }

# SeaweedFS puts its gRPC ports 10,000 above these.
read -r s3 master volume filer head < <(python3 - <<'PYTHON'
import random, socket

ports = []
while len(ports) < 5:
    port = random.randrange(20000, 30000)
    try:
        for candidate in (port, port + 10000):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", candidate))
    except OSError:
        continue
    if port not in ports:
        ports.append(port)
print(*ports)
PYTHON
)
export AWS_ACCESS_KEY_ID=demo AWS_SECRET_ACCESS_KEY=demo-secret AWS_REGION=us-east-1
export AWS_ENDPOINT_URL=http://127.0.0.1:$s3
cat >"$work/s3.json" <<JSON
{"identities": [{"name": "demo", "credentials": [{"accessKey": "demo", "secretKey": "demo-secret"}],
 "actions": ["Admin", "Read", "Write", "List", "Tagging"]}]}
JSON
mkdir "$work/weed"
echo "Starting an S3 server (SeaweedFS) and uploading $(basename "$folder")"
GOMEMLIMIT=400MiB "$root/.venv/bin/weed" -logtostderr=true server -dir="$work/weed" -ip=127.0.0.1 -ip.bind=127.0.0.1 \
  -master.telemetry=false -master.port="$master" -master.electionTimeout=1s -master.volumeSizeLimitMB=1024 \
  -volume.port="$volume" -volume.max=200 -filer -filer.port="$filer" -s3 -s3.port="$s3" -s3.port.iceberg=0 \
  -s3.port.lance=0 -s3.config="$work/s3.json" >"$work/weed.log" 2>&1 &
server=$!
for attempt in $(seq 1 100); do
  if (: >"/dev/tcp/127.0.0.1/$s3") 2>/dev/null &&
    echo "s3.bucket.create -name models" | "$root/.venv/bin/weed" shell -master="127.0.0.1:$master" \
      -filer="127.0.0.1:$filer" >"$work/bucket.log" 2>&1; then
    break
  fi
  if ((attempt == 100)) || ! kill -0 "$server" 2>/dev/null; then
    echo "The S3 server did not start:" >&2
    tail -n 5 "$work/weed.log" >&2
    exit 1
  fi
  sleep 0.3
done
for file in "$folder"/*; do
  [[ -f $file ]] && MOBULA_DIRECTORY=$work/none "$mobula" put "$file" s3://models/model/ >/dev/null
done

echo "Starting three hosts"
start() {
  local host=$1
  shift
  MOBULA_DIRECTORY=$work/host$host "$mobula" start --name "host$host" --capacity 1GB --memory 4GB --cpus 2 \
    --resources speech=2 --spill none "$@" >/dev/null
}
start 1 --head --port "$head"
start 2 --address "127.0.0.1:$head" --token-file "$work/host1/token"
start 3 --address "127.0.0.1:$head" --token-file "$work/host1/token"

export MOBULA_DIRECTORY=$work/host1
"$speech" evaluate --model s3://models/model/ --resource speech=1 --actors 3 \
  ${CLIPS:+--clips "$CLIPS"} ${BEAMS:+--beams "$BEAMS"} ${JSON:+--json "$JSON"}
