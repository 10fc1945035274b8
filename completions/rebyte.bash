# Completion of rebyte for bash. Printed by `rebyte completion bash`.

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
complete -o nosort -F _rebyte rebyte rebyte-cli 2>/dev/null ||
    complete -F _rebyte rebyte rebyte-cli
