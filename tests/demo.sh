#!/bin/sh
# The whole story on the local service: each command is printed before its output.
set -eu
rebyte=${REBYTE_BIN:-rebyte}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'exit 130' INT
export REBYTE_CONFIG_DIR="$folder/config" REBYTE_STATE_DIR="$folder/state"
export REBYTE_PROFILE=local
unset REBYTE_API_KEY REBYTE_API_URL REBYTE_OUTPUT 2>/dev/null || true

run() {
  printf '\n$ rebyte'
  for word; do
    case $word in
      *[!A-Za-z0-9@/._=,-]*) printf ' "%s"' "$word" ;;
      *) printf ' %s' "$word" ;;
    esac
  done
  printf '\n'
  "$rebyte" -q "$@"
}

echo "Everything below runs on this machine: no account, no network, a simulated agent."
run create "Say hello" -s pdf --wait -o table
run follow-up @last "Now say it in French" --wait -o table
run result @last
run create "Add tests in the same VM" -w @last --wait -o table
run create "Fail on purpose [[fail]]" --wait -o table || echo "(status $?)"
run list -o table
run workspace list -o table
run delete @1 @2 @3 -o table
run list -o table
printf '\nYours to try: REBYTE_PROFILE=local %s create "Say hello" --wait\n' "$rebyte"
