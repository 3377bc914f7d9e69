#compdef imgfs
# Completion of imgfs for zsh. In ~/.zshrc, after compinit: source <(imgfs completion zsh)
_imgfs() {
	local line word text
	local -a lines more moretext ends endtext
	lines=("${(@f)$(command imgfs __complete zsh "${(@Q)words[1,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null)}")
	case ${lines[1]} in
	(files) _files; return ;;
	(dirs) _files -/; return ;;
	esac
	for line in "${(@)lines[2,-1]}"; do
		word=${${line%%$'\t'*}[2,-1]}
		if [[ $line == *$'\t'* ]]; then text="$word -- ${line#*$'\t'}"; else text=$word; fi
		if [[ $line == +* ]]; then
			more+=("$word") moretext+=("$text")
		else
			ends+=("$word") endtext+=("$text")
		fi
	done
	(( $#more )) && compadd -S '' -d moretext -a more
	(( $#ends )) && compadd -d endtext -a ends
	(( $#more + $#ends ))
}
if [[ ${funcstack[1]-} == _imgfs ]]; then
	_imgfs "$@"
elif (( $+functions[compdef] )); then
	compdef _imgfs imgfs
fi
