# What a machine needs before cargo can build the workspace, and how it gets there. Read by ./run, tests/run, .ci/run and
# tools/rustc, in the root of the repository.

# Where rustup puts what it installs, whether or not the shell knows.
PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"

# Says what is wrong and what to do, and gives up.
#   fail PROBLEM [WHAT TO DO]…
fail() {
    printf 'error: %s\n' "$1" >&2
    shift
    [ "$#" -eq 0 ] || printf '  %s\n' "$@" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

# Installs Debian packages, fetching the lists only when a package is not found in those that are there.
install_packages() {
    echo "installing $*" >&2
    export DEBIAN_FRONTEND=noninteractive
    as_root apt-get install --yes --no-install-recommends "$@" >/dev/null 2>&1 ||
        { as_root apt-get update >/dev/null && as_root apt-get install --yes --no-install-recommends "$@" >/dev/null; }
}

# The C parts of the dependencies need a compiler and make. Installs them where that takes no password, or asks for them.
install_compiler() {
    command -v cc >/dev/null && command -v make >/dev/null && return
    if command -v apt-get >/dev/null && { [ "$(id -u)" -eq 0 ] || sudo --non-interactive true 2>/dev/null; }; then
        install_packages build-essential || true
    fi
    command -v cc >/dev/null && command -v make >/dev/null && return
    fail "a C compiler (cc) or make is missing, and could not be installed from here." \
        "Debian, Ubuntu: sudo apt-get install build-essential" \
        "Fedora: sudo dnf install gcc make" \
        "Alpine: sudo apk add build-base" \
        "macOS: xcode-select --install" \
        "Then run this again."
}

# A value of rust-toolchain.toml, lists as words: channel, or targets.
of_toolchain() {
    sed -n "s/^$1 = //p" rust-toolchain.toml | tr -d '[]",'
}

# The targets of rust-toolchain.toml whose standard library this rustc does not find, as words. Asks nobody else, and so
# neither the network nor rustup.
#   missing_targets RUSTC
missing_targets() {
    for target in $(of_toolchain targets); do
        libraries="$("$1" --print target-libdir --target "$target" 2>/dev/null)" || libraries=
        set -- "$1" "$libraries"/libcore-*.rlib
        [ -e "$2" ] || printf '%s ' "$target"
    done
}

# Whether rustc runs, and these of cargo's commands. A rustup that installs at every call would do it here, without a word.
#   has_toolchain [COMMAND]…
has_toolchain() {
    (
        export RUSTUP_AUTO_INSTALL=0
        rustc --version || exit
        for command in "$@"; do cargo "$command" --version || exit; done
    ) >/dev/null 2>&1
}

# Whether nothing is missing of what install_toolchain installs.
is_complete() {
    has_toolchain "$@" && [ -z "$(missing_targets rustc)" ]
}

# Installs what is missing of the toolchain that rust-toolchain.toml names; where nothing is, nobody is asked.
#   install_toolchain [COMMAND OF CARGO THAT IS NEEDED]…
install_toolchain() {
    command -v cargo >/dev/null || command -v rustup >/dev/null || install_rustup
    is_complete "$@" && return
    if ! command -v rustup >/dev/null; then
        fail "$(command -v rustc || echo rustc) is not all that rust-toolchain.toml names (Rust $(of_toolchain channel); \
targets missing: $(missing_targets rustc)), and there is no rustup that could install it." \
            "Install rustup (https://rustup.rs, or your distribution's package), or the standard libraries of these targets" \
            "from where this rustc came from. Then run this again."
    fi
    # A server that does not answer is not waited for as long as rustup would.
    export RUSTUP_DOWNLOAD_TIMEOUT="${RUSTUP_DOWNLOAD_TIMEOUT:-20}" RUSTUP_MAX_RETRIES="${RUSTUP_MAX_RETRIES:-1}"
    if has_toolchain "$@"; then
        # Asks for no list of releases, so that a mirror of files will do. One argument each:
        # shellcheck disable=SC2046
        rustup target add $(missing_targets rustc) >&2 || true
    else
        # Without arguments it installs what rust-toolchain.toml names, targets and components included.
        rustup toolchain install >&2 || true
    fi
    is_complete "$@" || fail "rustup could not install what rust-toolchain.toml names (Rust $(of_toolchain channel); \
targets missing: $(missing_targets rustc)); its messages are above." \
        "It fetches from ${RUSTUP_DIST_SERVER:-https://static.rust-lang.org} (RUSTUP_DIST_SERVER names a mirror) and writes to \
$(rustup show home 2>/dev/null || echo its folder)." \
        "Mend that and run this again."
}

install_rustup() {
    command -v curl >/dev/null || install_packages curl ca-certificates || true
    echo "installing rustup" >&2
    curl --proto '=https' --tlsv1.2 --connect-timeout 10 -sSf https://sh.rustup.rs |
        sh -s -- -y --no-modify-path --default-toolchain none >&2 || true
    command -v rustup >/dev/null || fail "there is no cargo, and rustup, which installs it, could not be fetched." \
        "Install rustup (https://rustup.rs, or your distribution's package) and run this again."
}
