# Sourced by tests/run.sh: a PostgreSQL of our own for the time of one step, in a temporary directory.

POSTGRES_URL=""
postgres_dir=""
postgres_user=()

# The folder of initdb and pg_ctl: the newest that Debian has installed, or what is on the path.
postgres_bin() {
  local initdb
  initdb=$(ls -d /usr/lib/postgresql/*/bin/initdb 2>/dev/null | sort -V | tail -n 1)
  [ -n "$initdb" ] || initdb=$(command -v initdb) || return 1
  dirname "$initdb"
}

postgres_start() {
  local bin port
  bin=$(postgres_bin) || return 1
  # initdb refuses root: root becomes postgres, and the directory lies where that user may go.
  postgres_dir=$(mktemp -d /tmp/muster-postgres.XXXXXX) || return 1
  postgres_user=()
  if [ "$(id -u)" = 0 ]; then
    postgres_user=(runuser -u postgres --)
    chown postgres "$postgres_dir"
  fi
  # A password, so that the tests log in as a controller does.
  local password
  password=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
  (umask 077 && printf '%s\n' "$password" >"$postgres_dir/password") &&
    { [ "$(id -u)" != 0 ] || chown postgres "$postgres_dir/password"; } &&
    (cd "$postgres_dir" && "${postgres_user[@]}" "$bin/initdb" -D data -U muster --auth=scram-sha-256 \
      --pwfile=password -E UTF8 --locale=C.UTF-8 --no-sync >initdb.log 2>&1) ||
    { cat "$postgres_dir/initdb.log"; return 1; }
  # There is no port 0: try until one is free.
  local attempt
  for attempt in 1 2 3 4 5; do
    port=$((20000 + RANDOM % 12000))
    if (cd "$postgres_dir" && "${postgres_user[@]}" "$bin/pg_ctl" -D data -w -t 60 -l server.log -o "-c port=$port \
        -c listen_addresses=127.0.0.1 -c unix_socket_directories=$postgres_dir -c max_connections=300 -c fsync=off \
        -c shared_buffers=64MB" start >/dev/null 2>&1); then
      POSTGRES_URL="postgres://muster:$password@127.0.0.1:$port/postgres"
      echo "PostgreSQL $("$bin/postgres" --version | grep -oE '[0-9.]+' | head -n 1) on port $port"
      return 0
    fi
  done
  tail -n 20 "$postgres_dir/server.log"
  return 1
}

postgres_stop() {
  [ -n "$postgres_dir" ] || return 0
  (cd "$postgres_dir" && "${postgres_user[@]}" "$(postgres_bin)/pg_ctl" -D data -w -m immediate stop >/dev/null 2>&1)
  rm -rf "$postgres_dir"
  postgres_dir=""
}
