# Shared by ./run, ./test and scripts/*: sourced by bash, with the working directory at the root.

say() { printf '\n== %s\n' "$*"; }
die() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

target_dir() { printf '%s' "${CARGO_TARGET_DIR:-target}"; }

# need_packages WHY PACKAGE…: installs Debian packages, or says what is missing.
need_packages() {
    local why=$1 sudo=
    shift
    command -v apt-get >/dev/null ||
        die "$why is missing. This is no Debian or Ubuntu: install what these packages hold: $*"
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || die "$why is missing. As root, run: apt-get install $*"
        sudo=sudo
    fi
    say "installing $* ($why)"
    if [ -z "${APT_UPDATED:-}" ]; then
        $sudo apt-get update -qq || die "apt-get update failed; needed for $why: $*"
        APT_UPDATED=1
    fi
    $sudo env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "$@" >/dev/null ||
        die "installing failed. Needed for $why: $*"
}

have_libclang() {
    local found
    [ -n "${LIBCLANG_PATH:-}" ] && return 0
    found=$(find /usr/lib /usr/lib64 /usr/local/lib -name 'libclang*.so*' -print -quit 2>/dev/null)
    [ -n "$found" ] || return 1
    # bindgen also needs clang's own headers.
    found=$(find -L /usr/lib/llvm* /usr/lib/clang /usr/lib64/clang -path '*include/stdbool.h' \
        -print -quit 2>/dev/null)
    [ -n "$found" ]
}

# Rust of at least the version that Cargo.toml names.
need_rust() {
    local wanted have
    wanted=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
    command -v cargo >/dev/null ||
        die "cargo is missing: install Rust $wanted or newer (https://rustup.rs), then run this again"
    have=$(cargo --version | cut -d' ' -f2)
    [ "$(printf '%s\n%s\n' "$wanted" "${have%%-*}" | sort -V | head -n 1)" = "$wanted" ] ||
        die "Rust $wanted or newer is needed, and this is $have: run 'rustup update', then this again"
}

# What building RocksDB needs, and cargo itself.
need_build_tools() {
    local missing=()
    [ -x "$HOME/.cargo/bin/cargo" ] && PATH=$PATH:$HOME/.cargo/bin
    need_rust
    command -v g++ >/dev/null || missing+=(g++)
    command -v make >/dev/null || missing+=(make)
    command -v pkg-config >/dev/null || missing+=(pkg-config)
    have_libclang || missing+=(libclang-dev)
    if [ ${#missing[@]} -gt 0 ]; then
        command -v ccache >/dev/null || missing+=(ccache)
        need_packages "what building RocksDB needs" "${missing[@]}"
    fi
    use_ccache
}

# A compiler cache makes every build of RocksDB after the first one short.
use_ccache() {
    command -v ccache >/dev/null || return 0
    export CC=${CC:-ccache gcc} CXX=${CXX:-ccache g++}
}

# RocksDB's object files of the build directory that is written to now.
rocksdb_objects() {
    local out
    out=$(ls -td "$(target_dir)"/release/build/librocksdb-sys-*/out 2>/dev/null | head -n 1) || true
    [ -n "$out" ] || return 0
    [ -e "$out/librocksdb.a" ] && return 0
    find "$out" -maxdepth 1 -name '*.o'
}

# Files that RocksDB is compiled from, as its crate lists them; nothing when that is not there.
rocksdb_files() {
    local version list
    version=$(grep -A 1 '^name = "librocksdb-sys"$' Cargo.lock | sed -n 's/^version = "\(.*\)"$/\1/p')
    list=$(ls "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/librocksdb-sys-"$version"/rocksdb_lib_sources.txt \
        2>/dev/null | head -n 1) || true
    [ -n "$list" ] || return 0
    wc -l < "$list" | tr -d ' '
}

# Says every few seconds how much of RocksDB is compiled, as long as it is.
tell_progress() {
    local period=$1 seen=0 now total pause begun=$SECONDS
    trap 'kill "$pause" 2>/dev/null; exit' TERM
    while :; do
        sleep "$period" &
        pause=$!
        wait "$pause"
        now=$(rocksdb_objects | wc -l | tr -d ' ')
        if [ "$now" -gt "$seen" ]; then
            total=$(rocksdb_files)
            # On a terminal over cargo's own line.
            [ ! -t 2 ] || printf '\r\033[K' >&2
            printf '   RocksDB: %s%s files compiled, %s s since the start\n' \
                "$now" "${total:+ of $total}" "$((SECONDS - begun))" >&2
            seen=$now
        fi
    done
}

# build ARGUMENT…: cargo build with them, and a line now and then while RocksDB is compiled.
build() {
    local teller status=0 begun=$SECONDS
    tell_progress "${PROGRESS_SECONDS:-15}" &
    teller=$!
    cargo build "$@" || status=$?
    kill "$teller" 2>/dev/null
    wait "$teller" 2>/dev/null || true
    [ "$status" = 0 ] || exit "$status"
    if [ $((SECONDS - begun)) -ge 60 ]; then
        say "built in $(((SECONDS - begun) / 60)) min $(((SECONDS - begun) % 60)) s"
    fi
}

# need_tool NAME: a cargo tool, from PATH or as a ready wheel in a virtual environment.
need_tool() {
    local tool=$1 venv
    command -v "$tool" >/dev/null && return 0
    venv=$(target_dir)/tools
    if [ ! -x "$venv/bin/$tool" ]; then
        python3 -c 'import ensurepip' 2>/dev/null || need_packages "$tool" python3 python3-venv
        say "installing $tool"
        python3 -m venv "$venv" && "$venv/bin/pip" install -q "astral-dev-toolchain-$tool" ||
            die "$tool could not be installed; try: cargo install --locked $tool"
    fi
    PATH=$PATH:$(cd "$venv/bin" && pwd)
}

need_component() {
    cargo "$1" --version >/dev/null 2>&1 && return 0
    command -v rustup >/dev/null && rustup component add "$2" && return 0
    die "cargo $1 is missing: rustup component add $2"
}

# What gives nodes networks and disks of their own. Only root can use it: others test on loopback.
need_cluster_tools() {
    local missing=()
    PATH=$PATH:/usr/sbin:/sbin
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 0
    command -v ip >/dev/null || missing+=(iproute2)
    command -v nft >/dev/null || missing+=(nftables)
    command -v mkfs.ext4 >/dev/null || missing+=(e2fsprogs)
    if [ ${#missing[@]} -gt 0 ]; then
        need_packages "what network namespaces and test disks need" "${missing[@]}"
    fi
}

# JDK, Maven, Go, Python and Node for the programs in tests/clients.
need_client_tools() {
    local missing=() jdk
    [ -x /usr/local/go/bin/go ] && PATH=$PATH:/usr/local/go/bin
    command -v python3 >/dev/null || missing+=(python3)
    python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
    if ! command -v javac >/dev/null; then
        jdk=openjdk-17-jdk-headless
        apt-cache show "$jdk" >/dev/null 2>&1 || jdk=default-jdk-headless
        missing+=("$jdk")
    fi
    command -v mvn >/dev/null || missing+=(maven)
    command -v go >/dev/null || missing+=(golang-go)
    command -v node >/dev/null || missing+=(nodejs)
    command -v npm >/dev/null || missing+=(npm)
    if [ ${#missing[@]} -gt 0 ]; then
        need_packages "what the client programs need" "${missing[@]}"
    fi
}
