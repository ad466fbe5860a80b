# Sourced by demo and test: installs what is missing and builds the static binary.

# need PROGRAM PACKAGE: installs PACKAGE where PROGRAM is missing.
need() {
  command -v "$1" >/dev/null 2>&1 && return 0
  [ "$(id -u)" = 0 ] || { echo "run as root: $1 is missing and has to be installed" >&2; exit 1; }
  command -v apt-get >/dev/null 2>&1 || { echo "install $1 (Debian's package $2)" >&2; exit 1; }
  [ -n "${updated:-}" ] || { apt-get update -qq; updated=1; }
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2" >/dev/null
}

# build: sets ONGGI to the static binary.
build() {
  command -v cargo >/dev/null 2>&1 || { echo "install Rust first: cargo is missing" >&2; exit 1; }
  target="$(uname -m)-unknown-linux-musl"
  if command -v rustup >/dev/null 2>&1; then rustup --quiet target add "$target"; fi
  cargo build --release --quiet -p onggi --target "$target"
  ONGGI="${CARGO_TARGET_DIR:-$PWD/target}/$target/release/onggi"
  export ONGGI
}
