# Completion of musterctl for bash.
_musterctl() {
    local line word current
    # bash takes words apart at = and :, which labels and addresses have.
    local -a words=()
    read -r -a words <<<"${COMP_LINE:0:COMP_POINT}"
    [[ ${COMP_LINE:0:COMP_POINT} == *[[:space:]] ]] && words+=("")
    current=${words[${#words[@]}-1]}
    local known=${COMP_WORDS[COMP_CWORD]}
    local cut=${current%"$known"}
    [[ $known == [=:] ]] && cut=$current
    COMPREPLY=()
    while IFS= read -r line; do
        if [[ $line == :files ]]; then
            compopt -o default 2>/dev/null
            COMPREPLY=()
            return
        fi
        word=${line%%$'\t'*}
        [[ $word == *[[:space:]]* ]] && word=$(printf '%q' "$word")
        COMPREPLY+=("${word#"$cut"}")
    done < <(command "${words[0]}" __complete -- "${words[@]:1}" 2>/dev/null)
}
complete -F _musterctl musterctl
