package live

import (
	"fmt"
	"os"
	"strings"
)

// A memory is what a process takes, in bytes.
type memory struct {
	shared  int64 // with what it shares divided among those that do
	private int64 // what nobody else has
}

// memoryOf asks the kernel.
func memoryOf(pid int) (memory, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return memory{}, err
	}
	return parseMemory(string(text))
}

func parseMemory(text string) (memory, error) {
	value := func(key string) (n int64, err error) {
		_, rest, ok := strings.Cut(text, "\n"+key+":")
		if _, err := fmt.Sscan(rest, &n); !ok || err != nil {
			return 0, fmt.Errorf("no %s in smaps_rollup", key)
		}
		return n << 10, nil
	}
	var m memory
	for key, to := range map[string]*int64{"Pss": &m.shared, "Private_Clean": &m.private, "Private_Dirty": &m.private} {
		n, err := value(key)
		if err != nil {
			return m, err
		}
		*to += n
	}
	return m, nil
}
