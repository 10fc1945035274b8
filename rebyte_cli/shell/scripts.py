"""The scripts that make each shell ask for an answer.

They hold no part of the command tree, so an upgrade of the package never makes them wrong. No
answer is ever evaluated or split into words: each line is one value.
"""

from __future__ import annotations

BASH = r"""# Completion of rebyte for bash. Printed by `rebyte completion bash`.

_rebyte() {
    local program=$1 files= before= line
    COMPREPLY=()
    type -P -- "$program" >/dev/null || program=rebyte
    {
        IFS=$'\t' read -r files before || return 0
        while IFS= read -r line; do
            COMPREPLY+=("$line")
        done
    } < <(_REBYTE_COMPLETE=bash command "$program" "${COMP_LINE:0:COMP_POINT}" "$2" \
        </dev/null 2>/dev/null)
    case $files in
        file) compopt -o default 2>/dev/null ;;
        dir) compopt -o dirnames 2>/dev/null ;;
        nospace) compopt -o nospace 2>/dev/null ;;
    esac
    return 0
}

# Bash before 4.4 sorts what it shows.
complete -o nosort -F _rebyte rebyte 2>/dev/null || complete -F _rebyte rebyte
"""

ZSH = r"""#compdef rebyte
# Completion of rebyte for zsh. Printed by `rebyte completion zsh`.

_rebyte() {
    local program=${(Q)words[1]} line files before value shown
    local -a lines values listed suffix
    integer width=0
    [[ $program == */* && -x $program ]] || program=rebyte
    lines=("${(@f)$(_REBYTE_COMPLETE=zsh command $program \
        "${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}" </dev/null 2>/dev/null)}")
    files=${lines[1]%%$'\t'*}
    before=${lines[1]#*$'\t'}
    if [[ -n $files ]]; then
        [[ -z $before ]] || compset -P "${(b)before}"
        if [[ $files == dir ]]; then _files -/; else _files; fi
        return
    fi
    shift lines
    for line in $lines; do
        shown=${${line#*$'\t'}%%$'\t'*}
        (( ${#shown} > width )) && width=${#shown}
    done
    for line in $lines; do
        value=${line%%$'\t'*}
        line=${line#*$'\t'}
        shown=${line%%$'\t'*}
        line=${line#*$'\t'}
        [[ -z $line ]] || shown="${(r:width:)shown}  -- $line"
        [[ $value != *= ]] || suffix=(-S '')
        values+=("$value")
        listed+=("${shown[1,COLUMNS-1]}")
    done
    (( $#values )) && compadd -V rebyte -l -d listed "${suffix[@]}" -a -- values
}

if [[ ${zsh_eval_context[-1]} == loadautofunc ]]; then
    _rebyte "$@"
else
    compdef _rebyte rebyte
fi
"""

FISH = r"""# Completion of rebyte for fish. Printed by `rebyte completion fish`.

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

complete --command rebyte --no-files --keep-order --arguments '(__rebyte_complete)'
"""

# Each shell's script and the name of its file, as the shell wants to find it.
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}
FILES = {"bash": "rebyte.bash", "zsh": "_rebyte", "fish": "rebyte.fish"}
