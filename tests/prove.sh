#!/usr/bin/env bash
# Shows what Muster promises, with release binaries, and prints the figures.
#
#   tests/prove.sh                     what can be shown
#   tests/prove.sh main-job            one ONLINE agent within 10 s, five states within 30 s, stops within 5 s
#   tests/prove.sh by-hand             three agents enrolled by hand; the controller is killed -9; nothing is lost
#   tests/prove.sh plugins             Debian's plugins through a manifest, the same as by hand
#   tests/prove.sh reflection          buf lists and calls the API with a certificate, and is refused without
#   tests/prove.sh identity [AGENTS]   that many (50) agents with certificates of 20 s: 30 renewals of each, a rotation of the
#                                      CA, a restart of the controller in each phase; nobody is refused, nothing is lost
#   tests/prove.sh clones              copies, images and snapshots, with real processes
#   tests/prove.sh bootstrap           machines made of user data and of the script; clocks that are wrong
#   tests/prove.sh attacks [CATEGORY]  what an attacker on the network gets, by the thousand; a table and attacks.json
#   tests/prove.sh enroll-throughput [ENROLLMENTS]
#                                      what an enrollment costs the controller, beside a bare connection and a signature
#   tests/prove.sh spool [KILLS]       a process that records is killed that often (1000) at any moment; nothing is missing
#   tests/prove.sh link [AGENTS]       a fleet of that many (10000) simulated agents: what links cost, that nothing is lost;
#                                      each figure three times; links that are cut once, on SQLite and on PostgreSQL; takes
#                                      an hour; target/test-logs/link.json and link-postgresql.json
#   tests/prove.sh access              every method for every kind of caller, over gRPC and REST, with counts; ways out of a scope
#   tests/prove.sh api-latency [AGENTS]
#                                      how soon operators are answered with that many (10000) agents, beside a bare server
#   tests/prove.sh plan-scale [AGENTS [POLICIES]]
#                                      what a plan of that many policies (200) costs with that many agents (10000)
#   tests/prove.sh postgresql          all tests on PostgreSQL, those too that tests/run.sh has on SQLite alone
#   tests/prove.sh ctl-speed [AGENTS]  how long musterctl takes to start, and to list that many (10000) agents, beside a bare client
#   tests/prove.sh footprint [SECONDS] size, memory and CPU of an agent after that time (600)
#   tests/prove.sh build-time          the first command of the README, from clean (removes target/release)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

system_tests() {
  release
  MUSTER_TEST_BIN_DIR="$PWD/target/release" cargo test --workspace --locked --test it -- --show-output "$1::"
}

release() { cargo build --release --workspace --bins --locked; }

footprint() {
  release
  ./tests/run/footprint.sh target/release "${1:-600}"
}

attacks() {
  release
  mkdir -p target/test-logs
  MUSTER_TEST_BIN_DIR="$PWD/target/release" ./target/release/attack --full --json target/test-logs/attacks.json "$@"
}

# A program that measures and prints JSON, with what it is given.
bench() {
  release
  MUSTER_TEST_POSTGRES_URL="" MUSTER_TEST_BIN_DIR="$PWD/target/release" "./target/release/$1" "${@:2}"
}

link() {
  release
  mkdir -p target/test-logs
  . tests/run/postgres.sh
  local swarm=("env" "MUSTER_TEST_BIN_DIR=$PWD/target/release" ./target/release/swarm figures --agents "${1:-10000}")
  MUSTER_TEST_POSTGRES_URL="" "${swarm[@]}" --json target/test-logs/link.json
  if ! postgres_bin >/dev/null; then
    echo "SKIPPED: links that are cut, on PostgreSQL: initdb of PostgreSQL is not installed (Debian: postgresql)"
    return 0
  fi
  trap postgres_stop EXIT
  postgres_start
  MUSTER_TEST_POSTGRES_URL="$POSTGRES_URL" "${swarm[@]}" --only 6 --json target/test-logs/link-postgresql.json
}

postgresql() {
  . tests/run/postgres.sh
  trap postgres_stop EXIT
  postgres_start
  cargo build --workspace --bins --locked
  MUSTER_TEST_POSTGRES_URL="$POSTGRES_URL" cargo test --workspace --locked --no-fail-fast
}

build_time() {
  rm -rf target/release
  time cargo build --release --locked -p muster-server
}

case "${1-}" in
  main-job) system_tests main_job ;;
  by-hand) system_tests by_hand ;;
  plugins) system_tests plugins ;;
  reflection) system_tests api ;;
  identity) MUSTER_TEST_FLEET=${2:-50} system_tests living_fleet ;;
  clones) system_tests clones ;;
  bootstrap) system_tests bootstrap && system_tests clocks ;;
  attacks) attacks "${@:2}" ;;
  access) system_tests access ;;
  enroll-throughput | api-latency | plan-scale | ctl-speed) bench "$@" ;;
  spool) release && ./target/release/spool-kills "${@:2}" ;;
  link) link "${2-}" ;;
  postgresql) postgresql ;;
  footprint) footprint "${2-}" ;;
  build-time) build_time ;;
  *) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; [ $# = 0 ] || exit 2 ;;
esac
