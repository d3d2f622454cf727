#!/usr/bin/env bash
# cargo 1.95.0 and dash 0.5.12-2: a rustc wrapper that is a shell script (RUSTC_WRAPPER, build.rustc-wrapper or
# build.rustc-workspace-wrapper: `exec "$@"` and nothing else) breaks the integration tests of every package that has a
# program with a dash in its name. cargo tells the compiler CARGO_BIN_EXE_<name> with the dash in it; dash drops variables
# whose names are none in a shell, and bash passes them on. The error says "environment variable not defined at compile time"
# and suggests asking at run time, where it is not there either.
#
# Seen: the same wrapper fails as dash and works as bash. Fails if that changes. Needs cargo 1.95.0 and apt-get (Debian 12,
# amd64).
set -euo pipefail
D=$(mktemp -d)
trap 'rm -rf "$D"' EXIT
cd "$D"
apt-get download -q dash=0.5.12-2 bash=5.2.15-2+b13 >/dev/null 2>&1
for package in *.deb; do dpkg -x "$package" root; done
cargo --version
mkdir -p crate/src/bin crate/tests
printf '[package]\nname = "c"\nversion = "0.1.0"\nedition = "2024"\n' >crate/Cargo.toml
echo 'fn main() {}' >crate/src/bin/two-words.rs
echo '#[test] fn path() { println!("{}", env!("CARGO_BIN_EXE_two-words")); }' >crate/tests/path.rs
built() {  # whether the test builds with a wrapper that this shell runs
    printf '#!%s\nexec "$@"\n' "$D/root/bin/$1" >"wrapper-$1"
    chmod +x "wrapper-$1"
    RUSTC_WRAPPER="$D/wrapper-$1" CARGO_TARGET_DIR="$D/target-$1" RUSTC_WORKSPACE_WRAPPER= \
        cargo test --quiet --offline --no-run --manifest-path crate/Cargo.toml >"$1.log" 2>&1
}
built bash && echo 'bash: built' || { echo 'changed: it does not build through bash'; cat bash.log; exit 1; }
if built dash; then echo 'changed: it builds through dash'; exit 1; fi
grep -m1 '^error' dash.log
grep -q 'CARGO_BIN_EXE_two-words. not defined at compile time' dash.log || { echo 'changed: another error'; cat dash.log; exit 1; }
echo 'as it was seen: through dash the name of the program is lost'
