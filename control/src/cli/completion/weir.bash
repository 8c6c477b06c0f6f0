# Completion for weir. Load it with: source <(weir completion bash)
# Behind `alias kubectl=weir` it serves kubectl too.

_weir() {
    local line=${COMP_LINE:0:COMP_POINT} candidate
    local -a words
    read -ra words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    # bash takes = and : for the ends of words, and replaces only what is behind the last one.
    local partial=${words[-1]}
    local kept=${partial%"${partial##*[=:]}"}
    COMPREPLY=()
    while IFS=$'\t' read -r candidate _; do
        COMPREPLY+=("${candidate#"$kept"}")
    done < <(@WEIR@ __complete -- "${words[@]:1}" 2>/dev/null)
    if [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[/=] ]]; then
        compopt -o nospace 2>/dev/null
    fi
}

complete -o default -F _weir weir
if alias kubectl 2>/dev/null | grep -q weir; then
    complete -o default -F _weir kubectl
fi
