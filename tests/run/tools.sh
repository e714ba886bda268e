# Sourced by tests/run.sh: what the tests need beyond a Rust toolchain, from Debian and in pinned versions.

BUF_VERSION=1.75.0
CARGO_DENY_VERSION=0.20.2
SCHEMATHESIS_VERSION=4.32.5
GRPCIO_VERSION=1.85.1

step_tools() {
  packages || return 1
  buf_install
  python_install
  cargo_deny_install || return 1
  rustc --version && "$(cargo_deny)" --version
}

# A command and the Debian package that brings it, where the command is not there yet.
packages() {
  local missing=()
  { command -v cc && command -v make; } >/dev/null || missing+=(build-essential)
  command -v curl >/dev/null || missing+=(curl ca-certificates)
  command -v npm >/dev/null || missing+=(npm)
  command -v systemd-analyze >/dev/null || missing+=(systemd)
  postgres_bin >/dev/null || missing+=(postgresql)
  [ -x /usr/lib/nagios/plugins/check_http ] || missing+=(monitoring-plugins-basic)
  command -v cloud-init >/dev/null || missing+=(cloud-init)
  command -v shellcheck >/dev/null || missing+=(shellcheck)
  command -v faketime >/dev/null || missing+=(faketime)
  command -v strace >/dev/null || missing+=(strace)
  command -v sqlite3 >/dev/null || missing+=(sqlite3)
  command -v zsh >/dev/null || missing+=(zsh)
  command -v fish >/dev/null || missing+=(fish)
  python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
  [ ${#missing[@]} -gt 0 ] || return 0

  local as_root=()
  if [ "$(id -u)" != 0 ]; then
    if ! sudo -n true 2>/dev/null; then
      cat <<END
run.sh: some Debian packages are missing, and only root can install them
  what  ${missing[*]}
  why   you are $(id -un), and sudo is not there or asks for a password
  do    sudo apt-get install --no-install-recommends ${missing[*]}
        the run goes on: what needs them is reported as SKIPPED or fails
END
      return 0
    fi
    as_root=(sudo -n)
  fi
  # The tests start a PostgreSQL of their own: the host gets none from the package.
  local no_cluster=/etc/postgresql-common/createcluster.d/muster-tests.conf
  "${as_root[@]}" apt-get update -q &&
    "${as_root[@]}" install -D -m 0644 /dev/stdin "$no_cluster" <<<'create_main_cluster = false' &&
    cloud_init_stays_off "${missing[@]}" &&
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
  local code=$?
  "${as_root[@]}" rm -f "$no_cluster"
  return $code
}

# The tests want its program alone. With this file its services do nothing, also not when the host boots the next time; it
# stays for as long as the package does. A host that has cloud-init already is left as it is.
cloud_init_stays_off() {
  case " $* " in
    *" cloud-init "*) "${as_root[@]}" install -D -m 0644 /dev/null /etc/cloud/cloud-init.disabled ;;
  esac
}

buf_install() {
  local buf=target/tools/node_modules/.bin/buf
  [ "$("$buf" --version 2>&1)" = "$BUF_VERSION" ] && return 0
  command -v npm >/dev/null || { echo "npm is missing: buf is not installed"; return 0; }
  mkdir -p target/tools
  npm install --prefix target/tools --no-save --no-audit --no-fund --loglevel error "@bufbuild/buf@$BUF_VERSION"
}

# What tries the API as programs of others do: schemathesis over REST, grpcio over gRPC.
python_install() {
  local venv=target/tools/python wanted="$SCHEMATHESIS_VERSION $GRPCIO_VERSION"
  [ "$(cat "$venv/versions" 2>/dev/null)" = "$wanted" ] && return 0
  python3 -c 'import ensurepip' 2>/dev/null || { echo "python3-venv is missing: schemathesis is not installed"; return 0; }
  python3 -m venv --clear "$venv" &&
    "$venv/bin/pip" install --quiet --disable-pip-version-check --no-input "schemathesis==$SCHEMATHESIS_VERSION" \
      "grpcio==$GRPCIO_VERSION" "grpcio-reflection==$GRPCIO_VERSION" &&
    echo "$wanted" >"$venv/versions"
}

# The path of a cargo-deny of the pinned version.
cargo_deny() {
  local candidate
  for candidate in target/tools/bin/cargo-deny "$(command -v cargo-deny)"; do
    [ "$("$candidate" --version 2>/dev/null)" = "cargo-deny $CARGO_DENY_VERSION" ] && { echo "$candidate"; return 0; }
  done
  echo "cargo-deny-$CARGO_DENY_VERSION-is-missing"
  return 1
}

cargo_deny_install() {
  cargo_deny >/dev/null && return 0
  echo "building cargo-deny $CARGO_DENY_VERSION under target/tools; this takes some minutes, once"
  cargo install --quiet --locked --root target/tools --version "$CARGO_DENY_VERSION" cargo-deny
}
