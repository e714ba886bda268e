#compdef musterctl
# Completion of musterctl for zsh.
_musterctl() {
    local -a lines values
    local line
    lines=("${(@f)$(command "${words[1]}" __complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ ${lines[1]} == ":files" ]]; then
        _files
        return
    fi
    for line in "${lines[@]}"; do
        [[ -n $line ]] || continue
        # A colon would begin the description.
        values+=("${${line%%$'\t'*}//:/\\:}${${(M)line:#*$'\t'*}:+:${line#*$'\t'}}")
    done
    _describe 'musterctl' values
}
if [[ ${funcstack[1]} == _musterctl ]]; then
    _musterctl "$@"
else
    compdef _musterctl musterctl
fi
