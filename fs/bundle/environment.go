package bundle

import (
	"strings"

	"github.com/imgfs/imgfs/remote/printable"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// defaultPath is PATH where the image sets none.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// A variables is an environment in which each name is once, in the place that it had
// first.
type variables struct {
	list []string
	at   map[string]int
}

func (v *variables) set(name, value string) {
	if i, ok := v.at[name]; ok {
		v.list[i] = name + "=" + value
		return
	}
	v.at[name] = len(v.list)
	v.list = append(v.list, name+"="+value)
}

// setDefault sets a variable that is not set.
func (v *variables) setDefault(name, value string) {
	if _, ok := v.at[name]; !ok {
		v.set(name, value)
	}
}

// environment returns the variables that the command finds: podman's own, the image's,
// the user's.
func environment(config *ocispec.ImageConfig, o *Options, home string) ([]string, error) {
	v := variables{at: map[string]int{}}
	v.set("PATH", defaultPath)
	v.set("TERM", "xterm")
	v.set("container", "imgfs") // systemd.io/CONTAINER_INTERFACE: the manager's name
	for _, list := range [][]string{config.Env, o.Env} {
		for _, s := range list {
			name, value, _ := strings.Cut(s, "=")
			if name == "" {
				return nil, refuse(BadVariable, "variable without a name: %s", printable.Name(printable.Cut(s, 60)))
			}
			v.set(name, value)
		}
	}
	v.setDefault("HOME", home)
	v.setDefault("HOSTNAME", o.hostname())
	return v.list, nil
}
