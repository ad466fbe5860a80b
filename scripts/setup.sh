# shellcheck shell=sh
# Sourced by scripts of the project: installs what is missing, builds the static binary, knows Debian's mirrors.

# need PROGRAM PACKAGE: installs PACKAGE where PROGRAM is missing.
need() {
  command -v "$1" >/dev/null 2>&1 || install_package "$2" "$1"
}

# install_package PACKAGE [PROGRAM]: installs it, for the sake of the program, and says so before.
install_package() {
  [ "$(id -u)" = 0 ] || { echo "run as root: ${2:-$1} is missing and has to be installed" >&2; exit 1; }
  command -v apt-get >/dev/null 2>&1 || { echo "install ${2:-$1} (Debian's package $1)" >&2; exit 1; }
  echo "installing Debian's package $1${2:+, for $2}" >&2
  [ -n "${updated:-}" ] || { apt-get update -qq; updated=1; }
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$1" >/dev/null
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

# debian_mirror: the URI of a mirror that this host's apt has, or ONGGI_MIRROR.
debian_mirror() {
  mirror=${ONGGI_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)|$(COMPONENT)|$(ORIGIN)|$(CODENAME)' 'Created-By: Packages' |
    awk -F'|' '$2 == "main" && $3 == "Debian" && $4 !~ /-/ {print $1; exit}')}
  [ -n "$mirror" ] || { echo "apt has no Debian mirror here: give one in ONGGI_MIRROR" >&2; return 1; }
  echo "$mirror"
}

# apt_settings: how this host's apt reaches its mirrors, as a configuration for another system's.
apt_settings() {
  apt-config dump | grep -E '^Acquire::(http|https|Check-|Retries|Proxy)' || true
  echo 'Acquire::Languages "none"; APT::Install-Recommends "false"; APT::Sandbox::User "root";'
}
