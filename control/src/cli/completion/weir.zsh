#compdef weir
# Completion for weir. Load it with: source <(weir completion zsh)
# Behind `alias kubectl=weir` it serves kubectl too.

_weir() {
    local candidate
    local -a plain described
    while IFS= read -r candidate; do
        if [[ $candidate == *$'\t'* ]]; then
            described+=("${${candidate%%$'\t'*}//:/\\:}:${candidate#*$'\t'}")
        else
            plain+=("$candidate")
        fi
    done < <(@WEIR@ __complete -- "${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null)
    if (( $#plain + $#described == 0 )); then
        _files
        return
    fi
    (( $#described )) && _describe weir described
    if (( $#plain == 1 )) && [[ $plain[1] == *[/=] ]]; then
        compadd -S '' -- "${plain[@]}"
    else
        compadd -- "${plain[@]}"
    fi
}

(( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }
compdef _weir weir
[[ ${aliases[kubectl]-} == *weir* ]] && compdef _weir kubectl
true
