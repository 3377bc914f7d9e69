package serve

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestUnitOf: systemd names the cgroups of units after them.
func TestUnitOf(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       unitName
	}{
		{"system", "0::/system.slice/system-imgfs.slice/imgfs@mnt-my\\x2dfedora.service\n", unitName{"imgfs@mnt-my\\x2dfedora.service", false}},
		{"two hierarchies", "9:name=systemd:/system.slice/x.service\n8:pids:/\n0::/\n", unitName{"x.service", false}},
		{"user", "0::/user.slice/user-1000.slice/user@1000.service/app.slice/x.service\n", unitName{"x.service", true}},
		{"user's manager itself", "0::/user.slice/user-1000.slice/user@1000.service\n", unitName{"user@1000.service", false}},
		{"session", "0::/user.slice/user-1000.slice/session-1.scope\n", unitName{}},
		{"other hierarchy", "8:pids:/x.service\n", unitName{}},
		{"none", "", unitName{}},
	} {
		if got, err := unitOf(c.text); got != c.want || (err == nil) != (c.want.name != "") {
			t.Errorf("%s: %v %v, not %v", c.name, got, err, c.want)
		}
	}
}

// TestHasRestart: the list of jobs tells a restart of a unit from its end.
func TestHasRestart(t *testing.T) {
	const unit = "imgfs@mnt-my\\x2dfedora.service"
	for jobs, want := range map[string]bool{
		"7 " + unit + " restart running\n":                         true,
		"7 " + unit + " stop running\n":                            false,
		"7 " + unit + " start waiting\n":                           false,
		"7 x.service restart running\n8 " + unit + " stop running": false,
		"7 x.service stop waiting\n8 " + unit + " restart waiting": true,
		"": false,
	} {
		if got := hasRestart(jobs, unit); got != want {
			t.Errorf("%q: %v", jobs, got)
		}
	}
}

// TestStoreTake: what the service manager has kept is known by its names, in whatever order
// it comes, and what is behind a gap is of no use.
func TestStoreTake(t *testing.T) {
	open := func(name string) *os.File {
		fd, err := unix.Open(t.TempDir(), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		named := os.NewFile(uintptr(fd), name)
		t.Cleanup(func() { named.Close() })
		return named
	}
	var s Store
	if s.take(nil) {
		t.Error("of nothing something came")
	}
	other := open("mine")
	if !s.take([]*os.File{open("imgfs-held-1"), open("imgfs-state"), other, open("imgfs-held-3"), open("imgfs-device"), open("imgfs-held-0")}) {
		t.Fatal("nothing came")
	}
	if s.device == nil || s.state == nil || s.held != 2 || len(s.came) != 2 || s.came[0].Name() != "imgfs-held-0" || s.came[1].Name() != "imgfs-held-1" {
		t.Errorf("there came %v, %v and %v", s.device, s.state, s.came)
	}
	if _, err := other.Stat(); err == nil {
		t.Error("what is the user's own stays open")
	}
}
