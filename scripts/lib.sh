# shellcheck shell=bash
# What the scripts beside this file share: where things are, how they speak, how they run a long step.
# Sourced, never run.

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
STATE=$REPO/.state
VENV=$REPO/.venv
export REPO STATE VENV

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ] && [ "${TERM:-dumb}" != dumb ]; then
  BOLD=$'\e[1m' RED=$'\e[31m' GREEN=$'\e[32m' YELLOW=$'\e[33m' PLAIN=$'\e[0m'
else
  BOLD='' RED='' GREEN='' YELLOW='' PLAIN=''
fi
export BOLD RED GREEN YELLOW PLAIN

say() { printf '%s\n' "$*"; }
warn() { printf '%sWarning:%s %s\n' "$YELLOW" "$PLAIN" "$*" >&2; }

# die WHAT [HOW TO MEND IT]
die() {
  printf '%sError:%s %s\n' "$RED" "$PLAIN" "$1" >&2
  [ $# -lt 2 ] || printf '  %s\n' "$2" >&2
  exit 1
}

# misused WHAT: the caller was called in a way that it does not know.
misused() {
  printf '%sError:%s %s\n  See %s --help.\n' "$RED" "$PLAIN" "$1" "$0" >&2
  exit 2
}

# The caller's help text is the comment block under its #! line.
usage() { sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$0"; }

# as_root COMMAND...: as it is for root, through sudo for everybody else.
as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    die "'$1' needs root, and there is no sudo here." "Run this as root, or install sudo and let $(id -un) use it."
  fi
}

# private_dir DIR...: made when missing, for the owner alone.
private_dir() { (umask 077 && mkdir -p "$@"); }

# long_step NAME MEND COMMAND...: runs COMMAND with its output in .state/log/NAME.log and, on a terminal,
# a line that counts the seconds. When it fails: the log's tail, its path, MEND, and exit.
long_step() {
  local name=$1 mend=$2 log=$STATE/log/${1// /-}.log started=$SECONDS ticker='' rc=0
  shift 2
  private_dir "$STATE/log"
  if [ -t 1 ]; then
    while kill -0 $$ 2>/dev/null; do
      printf '\r  %s ... %d s' "$name" $((SECONDS - started))
      sleep 1
    done &
    ticker=$!
  else
    printf '  %s ...\n' "$name"
  fi
  "$@" >"$log" 2>&1 </dev/null || rc=$?
  if [ -n "$ticker" ]; then
    kill "$ticker" 2>/dev/null
    wait "$ticker" 2>/dev/null || :
    printf '\r\e[K'
  fi
  if [ "$rc" != 0 ]; then
    printf '  %s: %sfailed%s after %d s. The end of its log:\n' "$name" "$RED" "$PLAIN" $((SECONDS - started)) >&2
    tail -n 25 "$log" | sed 's/^/  | /' >&2
    printf '  The whole log: %s\n' "$log" >&2
    die "$name failed." "$mend"
  fi
  printf '  %s: done (%d s)\n' "$name" $((SECONDS - started))
}
