#!/usr/bin/env bash
# Size, memory and CPU of an agent that runs the example policies against a controller on this host, as JSON.
#
#   footprint.sh BIN_DIR SECONDS
set -euo pipefail
bin=$(cd "$1" && pwd)
seconds=$2
policies=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../deploy/policies" && pwd)

dir=$(mktemp -d)
port=$((10000 + RANDOM % 20000))
agents=127.0.0.1:$port
api=127.0.0.1:$((port + 1))
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true; wait; rm -rf "$dir"' EXIT
cd "$dir"
ctl() { "$bin/musterctl" --config data/admin.yaml "$@"; }

"$bin/muster-server" init --data-dir "$dir/data" --name controller1 --trust-domain example.muster \
  --advertise $agents >/dev/null
sed -i "s/0\.0\.0\.0:8443/$agents/; s/127\.0\.0\.1:9443/$api/" data/server.yaml
sed -i "s/127\.0\.0\.1:9443/$api/" data/admin.yaml
"$bin/muster-server" run --config data/server.yaml >server.log 2>&1 &
server=$!
pids+=("$server")
until ctl agent list -o json >/dev/null 2>&1; do
  kill -0 "$server" 2>/dev/null || { cat server.log; exit 1; }
  sleep 0.2
done
mkdir policies
for policy in "$policies"/*.yaml; do
  sed "s/127\.0\.0\.1:8443/$agents/; s/127\.0\.0\.1:9443/$api/" "$policy" >"policies/${policy##*/}"
done
ctl apply -f policies >/dev/null 2>&1

(umask 077 && ctl token create -o name >join-token)
pin=$(ctl token create -o json | grep -o 'sha256:[0-9a-f]\{64\}' | head -n 1)
cat >agent.yaml <<END
server: { endpoints: ["$agents"], ca_pin: ["$pin"], token_file: $dir/join-token }
agent: { id_file: $dir/agent-id, state_dir: $dir/state, name: footprint, labels: { role: controller } }
END
"$bin/muster-agent" run --config agent.yaml >agent.log 2>&1 &
agent=$!
pids+=("$agent")
sleep "$seconds"
kill -0 "$agent" || { cat agent.log; exit 1; }

ticks=$(getconf CLK_TCK)
cpu() { awk -v ticks="$ticks" '{ printf "%.2f", ($14 + $15) / ticks }' "/proc/$1/stat"; }
pss() { awk '/^Pss:/ { print $2 * 1024 }' "/proc/$1/smaps_rollup"; }
process() { printf '{"pss_bytes": %d, "cpu_seconds": %s}' "$(pss "$1")" "$(cpu "$1")"; }
cp "$bin/muster-agent" stripped && strip stripped
printf '{"seconds": %d, "agent_binary_bytes": %d, "agent_binary_stripped_bytes": %d, "agent": %s, "controller": %s, "states_ok": %d}\n' \
  "$seconds" "$(stat -c %s "$bin/muster-agent")" "$(stat -c %s stripped)" "$(process "$agent")" "$(process "$server")" \
  "$(ctl state list -o json | grep -c '"state": "CHECK_STATE_OK"')"
