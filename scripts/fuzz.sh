#!/bin/sh
# Fuzzes every target, or those that are named, for so many seconds each.
#
#   scripts/fuzz.sh SECONDS [TARGET...]
#
# cargo-fuzz wants a nightly compiler for its sanitizer flags; RUSTC_BOOTSTRAP=1 lets the stable one, which ships the same
# runtime, take them. New inputs that reach new code gather in fuzz/corpus, what crashes in fuzz/artifacts (both ignored by git):
# copy a crashing input to fuzz/seeds/TARGET/WHAT_IT_SHOWS once it is understood, and tests/fuzz.rs replays it ever after.
set -eu
cd "$(dirname "$0")/.."

usage() {
    echo "usage: make fuzz [SECONDS=n] [TARGETS='$(targets)'], n from 1 to 86400" >&2
    exit 2
}
targets() {
    sed -n 's/^path = "fuzz_targets\/\(.*\)\.rs"$/\1/p' fuzz/Cargo.toml | xargs
}

case "${1-}" in
'' | *[!0-9]* | ??????*) usage ;;
esac
seconds=$1
[ "$seconds" -ge 1 ] && [ "$seconds" -le 86400 ] || usage
shift
for target in "$@"; do
    case " $(targets) " in
    *" $target "*) ;;
    *) usage ;;
    esac
done
[ $# -gt 0 ] || {
    # shellcheck disable=SC2046
    set -- $(targets)
}

scripts/deps.sh fuzz
PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
if ! command -v cargo-fuzz >/dev/null; then
    echo "installing cargo-fuzz by cargo install (a minute or two)"
    cargo install --quiet --locked cargo-fuzz --version '^0.13'
fi

export RUSTC_BOOTSTRAP=1
host=$(rustc -vV | sed -n 's/^host: //p')
echo "building the targets (some minutes the first time)"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
trap 'exit 130' INT TERM HUP
if ! cargo fuzz build --target "$host" >"$log" 2>&1; then
    cat "$log" >&2
    exit 1
fi

count=0
total=0
crashes=0
for target in "$@"; do
    corpus=fuzz/corpus/$target
    artifacts=fuzz/artifacts/$target
    mkdir -p "$corpus" "$artifacts"
    # -timeout: an input that takes this many seconds is a finding, too. By the wall clock, so that a loaded machine needs slack.
    status=0
    "fuzz/target/$host/release/$target" "$corpus" "fuzz/seeds/$target" "-artifact_prefix=$artifacts/" \
        "-max_total_time=$seconds" -timeout=120 -rss_limit_mb=2048 -print_final_stats=1 >"$log" 2>&1 || status=$?
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log" | tail -1)
    coverage=$(sed -n 's/^#[0-9]*.* cov: \([0-9]*\) ft: \([0-9]*\) corp: \([0-9]*\).*/\1 edges, \2 features, \3 inputs kept/p' "$log" | tail -1)
    count=$((count + 1))
    total=$((total + ${runs:-0}))
    result=
    if [ "$status" != 0 ]; then
        crashes=$((crashes + 1))
        result=", CRASHED"
    fi
    printf '%-8s %10s executions, %s%s\n' "$target" "${runs:-0}" "${coverage:-no coverage}" "$result"
    if [ "$status" != 0 ]; then
        # The panic with its message, then where the input is; libFuzzer's own frames between them say nothing.
        grep -v -E '^#|^ *#|^INFO|^0x' "$log" | tail -n 80 >&2
    fi
done
echo "fuzz: $count targets, $total executions, $crashes crashes"
[ "$crashes" = 0 ]
