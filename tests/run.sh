#!/usr/bin/env bash
# Every gate, the same here and in CI. Not a build system: each step is one command that also works by hand.
#
#   tests/run.sh               all steps
#   tests/run.sh fmt clippy    these steps
#   tests/run.sh --list        their names
#
# Installs what it needs: Debian packages (as root, or by sudo when it asks for no password) and, under target/tools,
# tools of pinned versions. Ends with the time of each step and the tests that failed, and fails if there are any. What could
# not be tested here says so in a line "SKIPPED: what: why"; these lines are counted and shown again at the end. Of tests
# that pass nothing is shown; target/test-logs has everything.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

steps="tools fmt buf deny clippy build house sqlite postgres release"
logs=target/test-logs
failed=()
summary=()

. tests/run/tools.sh
. tests/run/postgres.sh

# A snapshot that differs is a failure, and no file to look for in the source tree.
export INSTA_UPDATE=no

step_fmt() { cargo fmt --all --check; }

step_buf() {
  local buf="$PWD/target/tools/node_modules/.bin/buf"
  [ -x "$buf" ] || { skip "buf lint, buf breaking" "buf is not installed"; return 0; }
  (cd proto && "$buf" lint && "$buf" breaking --against baseline.binpb) && echo "lint clean, nothing broken"
}

step_deny() { "$(cargo_deny)" check licenses bans sources; }

step_clippy() { cargo clippy --workspace --all-targets --locked -- -D warnings; }

# The binaries that the system tests start, then the tests themselves.
step_build() { cargo build --workspace --bins --locked && cargo test --workspace --no-run --locked; }

step_house() { cargo test --workspace --locked --test it -- --show-output house::; }

# Most tests wait most of their time; those that fill the machine take turns (tests/src/turn.rs).
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$((2 * $(nproc)))}

# An empty URL says that PostgreSQL has its own step: a test that needs it says nothing then.
step_sqlite() { MUSTER_TEST_POSTGRES_URL="" cargo test --workspace --locked --no-fail-fast -- --show-output; }

# What is about machines, networks, files, TLS, the command line and `dev`, and asks nothing of one database that it does not ask of
# the other, is tested on SQLite alone; tests/prove.sh postgresql has all of it on PostgreSQL.
no_database="house link_model plugins bad_input deploy terraform network agent_metrics main_job readme bootstrap clocks
  access_cli api_page attacks::callers attacks::enrollment attacks::output attacks::suite attacks::transport clones::admission comfort
  listeners newcomer operator throughput trust"

step_postgres() {
  if ! postgres_bin >/dev/null; then
    skip "all tests on PostgreSQL" "initdb of PostgreSQL is not installed (Debian: postgresql)"
    return 0
  fi
  # A step runs in a subshell, which takes its PostgreSQL along however it ends.
  trap postgres_stop EXIT
  trap 'exit 130' INT TERM
  postgres_start || return 1
  local area others=()
  for area in $no_database; do others+=(--skip "$area::"); done
  MUSTER_TEST_POSTGRES_URL="$POSTGRES_URL" cargo test --workspace --locked --no-fail-fast -- --show-output "${others[@]}"
}

# The first command of the README, as users build it; the other programs beside it are those that are there.
step_release() {
  local beside="$PWD/target/first-command"
  cargo build --release --locked -p muster-server || return 1
  mkdir -p "$beside" && ln -sf "$PWD"/target/debug/{muster-agent,musterctl} "$PWD/target/release/muster-server" "$beside" &&
    MUSTER_TEST_POSTGRES_URL="" MUSTER_TEST_BIN_DIR="$beside" cargo test --workspace --locked --test it -- --show-output main_job::
}

skip() { echo "SKIPPED: $1: $2"; }

# Of a log of tests: all but the tests that passed, and what these have printed.
failures() {
  awk '
    /^successes:$/ { passed = 1 }
    /^failures:$|^test result:/ { passed = 0 }
    /^SKIPPED:/ || !(passed || /^test .* ok$/ || /^$/) { print; fflush() }
  '
}

run_step() {
  local name=$1 start=$SECONDS code
  printf '\n== %s\n' "$name"
  "step_$name" 2>&1 | tee "$logs/$name.log" | failures
  code=${PIPESTATUS[0]}
  local took=$((SECONDS - start)) skipped
  skipped=$(grep -c '^SKIPPED:' "$logs/$name.log")
  summary+=("$(printf '%-9s %-6s %3dm%02ds %s' "$name" "$([ "$code" = 0 ] && echo ok || echo FAILED)" \
    $((took / 60)) $((took % 60)) "$([ "$skipped" = 0 ] || echo "$skipped skipped")")")
  [ "$code" = 0 ] || failed+=("$name")
}

case "${1-}" in
  --list) printf '%s\n' $steps; exit 0 ;;
  -*) sed -n '2,11s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
chosen=${*:-$steps}
for name in $chosen; do
  declare -F "step_$name" >/dev/null || { echo "$0: no step '$name'; there are: $steps" >&2; exit 2; }
done

mkdir -p "$logs"
for name in $chosen; do run_step "$name"; done

printf '\n== summary\n'
printf '%s\n' "${summary[@]}"
(cd "$logs" && for name in $chosen; do grep -h '^SKIPPED:' "$name.log"; done | sort | uniq -c)
printf 'total %dm%02ds\n' $((SECONDS / 60)) $((SECONDS % 60))
if [ ${#failed[@]} -gt 0 ]; then
  for name in "${failed[@]}"; do grep -hE '^test .* FAILED$|^error(\[|:)' "$logs/$name.log" | sort -u; done
  echo "FAILED: ${failed[*]} (logs in $logs/)"
  exit 1
fi
