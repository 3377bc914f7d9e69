# Completion of imgfs for fish. In ~/.config/fish/config.fish: imgfs completion fish | source
function __imgfs_complete
    set -l word (commandline -ct)
    set -l lines (command imgfs __complete fish (commandline -opc) "$word" 2>/dev/null)
    switch "$lines[1]"
        case files
            __fish_complete_path "$word"
        case dirs
            __fish_complete_directories "$word" ''
        case '*'
            printf '%s\n' $lines[2..-1]
    end
end
complete -c imgfs -f -a '(__imgfs_complete)'
