# Ten tasks: created, waited for, followed up where they failed, collected, deleted.
# Runs under `bash -euo pipefail` and any POSIX shell: no sleep, and no parsing but jq's.
folder=$1
mkdir -p "$folder/results"

# --once lets the whole script be run again after an interrupt: no task is made twice.
number=0
while [ "$number" -lt 10 ]; do
  case $number in
    3 | 7) steer='[[fail]]' ;;
    *) steer='' ;;
  esac
  rebyte create "Summarise chapter $number $steer" --once "chapter-$number" -q -o id
  number=$((number + 1))
done > "$folder/ids"

# 10 says that a task failed, which the next step is for; anything else ends the script.
status=0
rebyte wait - -q -o jsonl < "$folder/ids" > "$folder/first.jsonl" 2> "$folder/errors" || status=$?
test "$status" -eq 0 || test "$status" -eq 10
echo "$status" > "$folder/status"

# The loop reads the ids from stdin, and rebyte leaves stdin alone where no `-` names it.
jq -r 'select(.status == "failed") | .id' "$folder/first.jsonl" > "$folder/failed"
while read -r task; do
  rebyte follow-up "$task" "Try once more, and do not fail" -q -o id
done < "$folder/failed" > "$folder/prompts"
rebyte wait - --timeout 60 -q -o jsonl < "$folder/failed" > "$folder/second.jsonl"

# Each answer in its own file, then the states of all ten in one document.
while read -r task; do
  rebyte result "$task" -q > "$folder/results/$task.txt"
done < "$folder/ids"
rebyte get - -q -o json --fields id,status,title < "$folder/ids" |
  jq -s 'map({key: .id, value: .status}) | from_entries' > "$folder/summary.json"
jq -e 'length == 10 and all(. == "completed")' "$folder/summary.json" > "$folder/complete"

# Deleted is what was created, and nothing else was there.
rebyte delete - -q -o id < "$folder/ids" > "$folder/deleted"
rebyte list -q -o json | jq -e '.total == 0' > "$folder/empty"
