#!/bin/sh
# The whole story on the local service: each command is printed before its output.
set -eu
typed=${REBYTE_BIN:-rebyte}
rebyte=$typed
case $rebyte in */*) rebyte=$(cd "$(dirname "$rebyte")" && pwd)/$(basename "$rebyte") ;; esac
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'exit 130' INT
export REBYTE_CONFIG_DIR="$folder/config" REBYTE_STATE_DIR="$folder/state"
cd "$folder"
export REBYTE_PROFILE=local REBYTE_OUTPUT=table
unset REBYTE_API_KEY REBYTE_API_URL 2>/dev/null || true

show() {
  printf '\n$ rebyte'
  for word; do
    case $word in
      *[!A-Za-z0-9@/._=,-]*) printf ' "%s"' "$word" ;;
      *) printf ' %s' "$word" ;;
    esac
  done
  printf '\n'
}

run() {
  show "$@"
  "$rebyte" "$@"
}

echo "Everything below runs on this machine: no account, no network, a simulated agent."
run create "Say hello" -s pdf --wait
run follow-up @last "Now say it in French" --wait --fields id,status,title,prompts
run result @last
run workspace name @last demo
run create "Add tests in the same VM" -w demo --wait --fields id,status,title,workspaceId
run create "Fail on purpose [[fail]]" --wait --fields id,status,title || echo "(status $?)"
run list --fields id,status,title
run delete @1 @2 @3 --yes -o id
run list -o json
printf '\nYours to try: REBYTE_PROFILE=local %s create "Say hello" --wait\n' "$typed"
