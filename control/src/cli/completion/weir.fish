# Completion for weir. Load it with: weir completion fish | source

function __weir_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l candidates (@WEIR@ __complete -- $words[2..-1] 2>/dev/null)
    if test (count $candidates) -gt 0
        printf '%s\n' $candidates
    else
        __fish_complete_path (commandline -ct)
    end
end

complete -c weir -f -a '(__weir_complete)'
