# Completion of imgfs for bash. In ~/.bashrc: source <(imgfs completion bash)
_imgfs() {
	local line first=
	COMPREPLY=()
	while IFS= read -r line; do
		if [[ -z $first ]]; then first=$line; else COMPREPLY+=("$line"); fi
	done < <(command imgfs __complete bash "${COMP_LINE:0:COMP_POINT}" "$COMP_WORDBREAKS" 2>/dev/null)
	case $first in
	files) compopt -o default ;;
	dirs) compopt -o dirnames ;;
	more) compopt -o nospace ;;
	esac 2>/dev/null
}
complete -F _imgfs imgfs
