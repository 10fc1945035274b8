# Completion of rebyte for fish. Printed by `rebyte completion fish`.

function __rebyte_complete
    set -l words (commandline --tokens-expanded --cut-at-cursor --current-process 2>/dev/null
        or commandline --tokenize --cut-at-cursor --current-process)
    set -l word (commandline --current-token --cut-at-cursor)
    set -l program $words[1]
    command --query -- "$program"; or set program rebyte
    set -l plain (string unescape -- "$word"; or echo -- "$word")
    set -l lines (env _REBYTE_COMPLETE=fish $program $words[2..] "$plain" </dev/null 2>/dev/null)
    set -l head (string split \t -- $lines[1])
    if test -n "$head[1]"
        # A quote in front of the path would be cut off with what stands before it.
        if test -n "$head[2]"; and string match --quiet --regex '^["\']' -- "$word"
            set word (string escape --no-quoted -- "$plain")
        end
        set -l path (string sub --start (math 1 + (string length -- "$head[2]")) -- "$word")
        if test "$head[1]" = dir
            printf '%s\n' "$head[2]"(__fish_complete_directories "$path")
        else
            printf '%s\n' "$head[2]"(__fish_complete_path "$path")
        end
        return
    end
    for line in $lines[2..]
        set -l parts (string split \t -- $line)
        printf '%s\t%s\n' "$parts[1]" "$parts[3]"
    end
end

complete --command rebyte --command rebyte-cli --no-files --keep-order \
    --arguments '(__rebyte_complete)'
