# What the scripts ask of the machine. Sourced, not run; the caller has set -euo pipefail.

# Everything of the host is compiled once, in this profile: tests, tools and the program.
CARGO_PROFILE=release
GUEST_TARGET=x86_64-unknown-linux-gnu

say() { printf '\n== %s\n' "$*" >&2; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Sandboxes need root, so building and running are done as root.
need_root() {
  [ "$(id -u)" -eq 0 ] && return
  command -v sudo >/dev/null || fail "run this as root"
  exec sudo --preserve-env=PATH,HOME,CI,CARGO_HOME,RUSTUP_HOME "$script" "$@"
}

# Debian packages, only those that are missing: a second run asks no server.
need_packages() {
  local missing=()
  for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q '^install ok' || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return
  command -v apt-get >/dev/null || fail "these Debian packages are missing: ${missing[*]}"
  say "installing ${missing[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# What `casemate` asks of a host, and what building it takes.
need_platform_packages() {
  need_packages nftables btrfs-progs mmdebstrap debian-archive-keyring ca-certificates curl gcc libc6-dev
  command -v cargo >/dev/null || fail "Rust is missing: https://rustup.rs"
}

# What starts once for each sandbox, the agent and the launcher: static, small, of a profile of
# their own. Then the program, with both inside.
build_static() {
  RUSTFLAGS="-C target-feature=+crt-static -C relocation-model=static" \
    cargo build --profile guest -p envd -p casemate-launcher --target "$GUEST_TARGET" \
    --target-dir target/guest
}
# Of the host there is one selection of features: with an example in it Cargo turns on what tests ask
# of their dependencies, as `cargo test --workspace` does. Any other (`-p`, no example) is another
# tokio, and with it nearly everything above is compiled once more.
build_host() {
  cargo build --profile "$CARGO_PROFILE" --workspace --example base "$@"
}
build_program() { build_host --bin casemate; }
built() { echo "${CARGO_TARGET_DIR:-target}/$CARGO_PROFILE"; }
program() { echo "$(built)/casemate"; }

# A Python environment at $1 with the packages of the requirements files that follow.
need_venv() {
  local dir=$1 stamp
  shift
  stamp=$(cat "$@" | sha256sum | cut -d' ' -f1)
  [ "$(cat "$dir/stamp" 2>/dev/null)" = "$stamp" ] && return
  python3 -c 'import ensurepip, venv' 2>/dev/null || need_packages python3 python3-venv
  rm -rf "$dir"
  python3 -m venv "$dir"
  local files=()
  for file in "$@"; do files+=(-r "$file"); done
  "$dir/bin/pip" install --quiet --disable-pip-version-check "${files[@]}"
  echo "$stamp" >"$dir/stamp"
}

# All that a cluster on this machine takes. Leaves in `base` where its archive is.
need_cluster() {
  need_platform_packages
  # Whoever installs them as usual has servers that run at once.
  RUNLEVEL=1 need_packages postgresql redis-server nginx-light procps patchelf
  need_venv target/test/venv tests/sdk/python/requirements.txt
  need_venv target/test/venv-artifacts tests/artifacts/requirements.txt
  say "building (a few minutes the first time)"
  build_static
  build_program
  base=${CASEMATE_TEST_BASE:-$PWD/target/test/base.tar.zst}
  if [ ! -e "$base" ]; then
    say "making the base template, about two minutes"
    "$(built)/examples/base" "$base.draft.tar.zst"
    mv "$base.draft.tar.zst" "$base"
  fi
}

# Becomes the program of a cluster that is named, with the rest: who ends the script ends it.
run_cluster() {
  say "a cluster of ten processes"
  CASEMATE=$(realpath "$(program)") CASEMATE_TEST_BASE=$base \
    exec target/test/venv/bin/python "$@"
}

# Node.js as the JavaScript SDK asks for it (Debian 12 has 18), and a suite's packages as locked: those
# of the folder $1, or of the SDK's.
need_node() {
  if ! node -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 21 || (a == 20 && b > 17) ? 0 : 1)' 2>/dev/null; then
    command -v npm >/dev/null || need_packages nodejs npm
    npm install --silent --no-save --prefix target/node node@22
    PATH=$PWD/target/node/node_modules/.bin:$PATH
  fi
  (cd "${1:-tests/sdk/js}" && npm ci --silent --no-audit --no-fund)
}

# Waits until $1 (a URL) answers 200, while process $2 lives; gives up after $3 seconds.
wait_ready() {
  local url=$1 pid=$2 left=$3
  until curl --silent --fail --output /dev/null --max-time 2 "$url"; do
    kill -0 "$pid" 2>/dev/null || return 1
    left=$((left - 1))
    [ "$left" -gt 0 ] || return 1
    sleep 1
  done
}

free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# What the platform with instance id $1 has on this host, one line each; nothing after a purge.
# Other platforms may run beside it.
traces() {
  {
    nft list tables 2>/dev/null
    ip -o link show | awk -F': ' '{ print "link", $2 }'
    awk '{ print "mount", $2 }' /proc/mounts
    find /sys/fs/cgroup -maxdepth 3 -type d -name 'casemate*'
    losetup --list --noheadings --output NAME,BACK-FILE 2>/dev/null
    find /run/casemate 2>/dev/null
    ps -eo pid=,args=
  } | grep -E "casemate[-_/]$1|link cm${1:0:6}-|$data_dir" | grep -v grep || true
}

# Switches of the kernel that a platform may turn.
switches() {
  sysctl net.ipv4.ip_forward net.ipv4.conf.all.rp_filter net.ipv4.conf.default.send_redirects
}
