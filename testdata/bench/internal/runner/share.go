package runner

import (
	"fmt"
	"os"
	"strings"
)

// A Share is what a process takes of the machine's memory, in bytes.
type Share struct {
	Proportional int64 // with what it shares divided among those that do
	Private      int64 // what nobody else has
	Anonymous    int64 // what is of no file, and so of no program
}

// ShareOf returns the share of a process now.
func ShareOf(pid int) (Share, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return Share{}, err
	}
	return parseShare(string(text))
}

func parseShare(text string) (Share, error) {
	value := func(key string) (n int64, err error) {
		_, rest, ok := strings.Cut(text, "\n"+key+":")
		if _, err := fmt.Sscan(rest, &n); !ok || err != nil {
			return 0, fmt.Errorf("no %s in smaps_rollup", key)
		}
		return n << 10, nil
	}
	var m Share
	for key, to := range map[string]*int64{"Pss": &m.Proportional, "Private_Clean": &m.Private, "Private_Dirty": &m.Private, "Anonymous": &m.Anonymous} {
		n, err := value(key)
		if err != nil {
			return m, err
		}
		*to += n
	}
	return m, nil
}
