//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/testdata/testenv"
)

// fullRun reports whether all images are run by all runtimes in all ways; make nightly does so.
func fullRun() bool { return os.Getenv("IMGFS_RUN") == "full" }

// A runCase is a container that podman and imgfs run have to agree on.
type runCase struct {
	name  string
	image string   // of runnables
	flags []string // of both
	args  []string
	stdin string
	// failed: there is no such container, and only the exit codes are compared.
	failed bool
}

var runCases = []runCase{
	{name: "output and code", image: "busybox", args: []string{"sh", "-c", "echo out; echo err >&2; exit 3"}},
	{name: "stdin", image: "busybox", flags: []string{"-i"}, stdin: strings.Repeat("line\x00\xff\n", 30_000), args: []string{"probe", "stdin"}},
	{name: "no stdin", image: "static", stdin: "not for the container\n", args: []string{"stdin"}},
	{name: "code 255", image: "static", args: []string{"warn", "w", "exit", "255"}},
	{name: "crash", image: "static", args: []string{"crash"}},
	{name: "child killed", image: "busybox", args: []string{"sh", "-c", `sh -c 'kill -9 $$'; exit $?`}},
	{name: "command of the entrypoint missing", image: "busybox", args: []string{"nosuch"}},
	{name: "entrypoint missing", image: "static", flags: []string{"--entrypoint", "/nosuch"}, failed: true},
	{name: "entrypoint not in PATH", image: "busybox", flags: []string{"--entrypoint", "nosuch"}, failed: true},
	{name: "entrypoint is a directory", image: "busybox", flags: []string{"--entrypoint", "/etc"}, failed: true},
	{name: "entrypoint not executable", image: "debian", flags: []string{"--entrypoint", "/etc/motd"}, failed: true},
	{name: "user missing", image: "named", flags: []string{"-u", "nosuch"}, failed: true},
	{name: "group missing", image: "named", flags: []string{"-u", "worker:nosuch"}, failed: true},
	{name: "workdir missing", image: "busybox", flags: []string{"-w", "/no/such"}, failed: true},
	{name: "workdir is a file", image: "busybox", flags: []string{"-w", "/etc/passwd"}, failed: true},
	{name: "files", image: "busybox", args: []string{"sh", "-c", `id -u; id -g; umask; pwd; echo "$HOME"; touch /new /etc/new new; stat -c '%n %a %u:%g' /* /srv/app/* /proc/self /dev/[dfmnprstuz]*; cat /etc/passwd`}},
	{name: "workdir made", image: "named", args: []string{"sh", "-c", `touch x; stat -c '%n %u:%g' . x; id -u; id -g`}},
	{name: "layers", image: "debian", args: []string{"bash", "-c", `/opt/to-tool a 'b c'; ls /opt /opt/emptied; cat /etc/motd; stat -c '%n %h' /opt/same-tool /opt/to-tool; rm /opt/kept-tool; ls -l /opt/*tool | wc -l; exit 7`}},
	{name: "volumes", image: "script", flags: []string{"-w", "/data"}, args: []string{"sh", "-c", `cat kept; touch made; stat -c '%n %a %u:%g' /data /data/*; touch /var/lib/made/x || echo no; id -u; id -G`}},
	{name: "devices", image: "debian", args: []string{"bash", "-c", `echo x >/dev/null && head -c 3 /dev/zero | wc -c; head -c 5 /dev/urandom | wc -c; echo to-stderr >/dev/stderr; echo to-stdout >/dev/stdout; cat <(echo by-fd); tty`}},
	{name: "read-only", image: "busybox", flags: []string{"--read-only"}, args: []string{"sh", "-c", `touch /x; touch /etc/x; echo $?; touch /dev/shm/x; echo $?; stat -c '%n %a' /tmp /var/tmp /dev/shm`}},
}

// reportCases print what the process in the container finds.
var reportCases = []runCase{
	{name: "busybox", image: "busybox"},
	{name: "named", image: "named"},
	{name: "static", image: "static"},
	{name: "debian", image: "debian", args: []string{"probe", "report"}},
	{name: "script", image: "script"},
	{name: "flags", image: "busybox", flags: []string{"-e", "GREETING=bye", "-e", "NEW=a=b c", "-w", "/tmp", "-u", "nobody", "--entrypoint", "probe", "--hostname", "other"}, args: []string{"report"}},
	{name: "last user", image: "named", flags: []string{"-w", "/", "-u", "last"}},
	{name: "number in passwd", image: "named", flags: []string{"-w", "/", "-u", "2005"}},
	{name: "number of nobody", image: "busybox", flags: []string{"-w", "/tmp", "-u", "4321"}},
	// podman writes the user's line behind the last one of passwd, which does not end here:
	// nobody finds the home in it then.
	{name: "number of nobody in odd accounts", image: "named", flags: []string{"-w", "/", "-u", "4321", "-e", "HOME=/home"}},
	{name: "user and group", image: "named", flags: []string{"-w", "/", "-u", "worker:extra"}},
	{name: "user and group number", image: "named", flags: []string{"-w", "/", "-u", "worker:77"}},
	{name: "root", image: "named", flags: []string{"-u", "root"}},
	{name: "stdin", image: "static", flags: []string{"-i"}, stdin: "x"},
}

// TestRunEqualsPodman holds imgfs run against podman run: what comes out, how it ends,
// and what the process in the container finds.
func TestRunEqualsPodman(t *testing.T) {
	testenv.Slow(t)
	needRun(t)
	images := runnables(t)
	for _, who := range whoRun(t) {
		t.Run(who.name, func(t *testing.T) {
			p := podmanOf(t, who)
			s := runSandbox(t, who)
			for _, layout := range images {
				s.ok("index", "oci:"+layout) // or there is a line about each layer
			}
			before := machineOf(t, s)
			t.Run("cases", func(t *testing.T) {
				for i, c := range slices.Concat(reportCases, runCases) {
					for j, runtime := range runtimes {
						// Every image's report by all, and of the rest some.
						if !fullRun() && i >= 5 && i%len(runtimes) != j {
							continue
						}
						t.Run(c.name+"/"+runtime, func(t *testing.T) {
							t.Parallel()
							want := p.ran(t, c.flags, images[c.image], c.stdin, c.args...)
							args := slices.Concat([]string{"run", "--runtime", runtime}, c.flags, []string{"oci:" + images[c.image]}, c.args)
							cmd := s.in(t).command(args...)
							if c.stdin != "" {
								cmd.Stdin = strings.NewReader(c.stdin)
							}
							compareRuns(t, &c, runtime, s.in(t).finish(cmd), want)
						})
					}
				}
			})
			before.asBefore(t, s)
		})
	}
}

func compareRuns(t *testing.T, c *runCase, runtime string, got, want result) {
	t.Helper()
	if got.code != want.code {
		t.Errorf("exit code %d, podman has %d\n%.500s%.500s\npodman:\n%.500s%.500s", got.code, want.code, got.stdout, got.stderr, want.stdout, want.stderr)
		return
	}
	if c.failed {
		if lines := strings.Split(strings.TrimSuffix(got.stderr, "\n"), "\n"); !strings.HasPrefix(got.stderr, "imgfs: ") || len(lines) > 2 || got.stdout != "" {
			t.Errorf("want one line and a hint:\n%s%s", got.stdout, got.stderr)
		}
		return
	}
	head, gotReport, ok := splitReport(t, got.stdout)
	wantHead, wantReport, wantOK := splitReport(t, want.stdout)
	if head != wantHead || ok != wantOK {
		t.Errorf("stdout:\n%.2000s\npodman:\n%.2000s", got.stdout, want.stdout)
	}
	if got.stderr != want.stderr {
		t.Errorf("stderr:\n%.2000s\npodman:\n%.2000s", got.stderr, want.stderr)
	}
	for name, value := range gotReport {
		if other := wantReport[name]; value != other && runExceptions[name+" of "+runtime] == "" && runExceptions[name] == "" {
			t.Errorf("%s: got %s, podman has %s", name, value, other)
		}
	}
}

// splitReport returns what stands before a report, and the report in lines that can be
// compared.
func splitReport(t *testing.T, out string) (head string, lines map[string]string, ok bool) {
	t.Helper()
	head, text, ok := strings.Cut(out, "{\n")
	if !ok {
		return out, nil, false
	}
	var all map[string]any
	if err := json.Unmarshal([]byte("{"+text), &all); err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	lines = map[string]string{}
	for name, value := range all {
		switch v := value.(type) {
		case map[string]any:
			for key, x := range v {
				lines[name+" "+key] = fmt.Sprint(x)
			}
		default:
			lines[name] = fmt.Sprint(v)
		}
	}
	env, _ := all["Env"].([]any)
	host := fmt.Sprint(all["Host"])
	env = slices.DeleteFunc(env, func(x any) bool {
		v := fmt.Sprint(x)
		// These say who made the container, and its name.
		return v == "container=podman" || v == "container=imgfs" || v == "HOSTNAME="+host
	})
	lines["Env"] = fmt.Sprintf("%q", env)
	for name, value := range all["Caps"].(map[string]any) {
		if bits, err := strconv.ParseUint(fmt.Sprint(value), 16, 64); err == nil {
			lines["Caps "+name] = fmt.Sprintf("%x", bits&^(1<<unix.CAP_MKNOD))
		}
	}
	lines["Groups"] = fmt.Sprint(others(all["Groups"], func(x any) bool { return fmt.Sprint(x) == fmt.Sprint(all["GID"].([]any)[0]) }))
	lines["Devices"] = fmt.Sprint(others(all["Devices"], func(x any) bool { return x == "core" }))
	mounts, _ := all["Mounts"].([]any)
	delete(lines, "Mounts")
	for _, m := range mounts {
		f := strings.Fields(fmt.Sprint(m))
		if slices.Contains([]string{"/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys"}, f[0]) {
			lines["Mounts "+f[0]] = strings.Join(f[1:3], " ")
		}
	}
	return head, lines, true
}

// others returns a list of JSON without some: podman gives all but root their own group as
// one of the others too, as it has to be; crun makes /dev/core, a link to /proc/kcore.
func others(list any, some func(any) bool) []any {
	all, _ := list.([]any)
	return slices.DeleteFunc(slices.Clone(all), some)
}

// runExceptions are where containers of imgfs differ from those of podman, and why.
var runExceptions = map[string]string{
	"Host":          "podman names a container by its ID, which imgfs does not have",
	"Limits nofile": "podman's are set, imgfs run has its caller's",
	"Limits nproc":  "as nofile",
	"Spaces cgroup": "namespaces have other numbers",
	"Spaces ipc":    "as cgroup",
	"Spaces mnt":    "as cgroup",
	"Spaces net":    "as cgroup",
	"Spaces pid":    "as cgroup",
	"Spaces user":   "as cgroup",
	"Spaces uts":    "as cgroup",
	"Seccomp":       "imgfs has no filter of system calls",

	"Caps CapBnd of bwrap":        "bwrap keeps the bounding set, and no_new_privs makes it harmless; in a user namespace there is none",
	"Caps CapInh of bwrap":        "bwrap gives capabilities in this way",
	"Caps CapAmb of bwrap":        "as CapInh",
	"Env of bwrap":                "bwrap sets PWD",
	"Groups of bwrap":             "bwrap's user namespace has one user and one group",
	"Mounts /dev of bwrap":        "bwrap has options of its own",
	"Mounts /dev/mqueue of bwrap": "as /dev",
	"Mounts /dev/shm of bwrap":    "as /dev",
	"Mounts /sys of bwrap":        "as /dev",
	"NoNew of bwrap":              "bwrap always sets no_new_privs",
}
