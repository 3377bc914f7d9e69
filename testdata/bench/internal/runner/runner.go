// Package runner runs the groups of the bench: their sections, tasks in turns,
// programs, mounts and a registry. It cleans up after them.
package runner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/imgfs/imgfs/testdata/bench/figures"
	"github.com/imgfs/imgfs/testdata/labimage"
)

// Settings are for all groups.
type Settings struct {
	Runs    int    // how often each thing is measured; 0 for the group's own number
	Only    string // a section, or SECTION/INPUT; "" for all
	Imgfs   string // the program
	Corpora string // where the lab's images are; "" for nowhere
	Logf    func(format string, args ...any)
	// System is the size of the image that is made if Corpora is "".
	System labimage.System
}

// A Runner measures one group of sections.
type Runner struct {
	Settings
	Ctx   context.Context
	Dir   string           // temporary
	Group *figures.Group   // the figures so far
	Now   *figures.Section // the section that runs

	self     string // this program, which also is the one that reads
	registry string // where it listens; "" as long as it does not run
	mounts   int    // so far, for their names
	stops    []func() error
}

// New returns a Runner that is ended with ctx.
func New(ctx context.Context, s Settings) *Runner { return &Runner{Settings: s, Ctx: ctx} }

// A Group is one of the parts of the bench.
type Group struct {
	Name, Title string
	Runs        int    // by default
	Flags       string // that the commands need that repeat its sections
	Sections    []Section
	// Prepare is called before the first section, unless it is nil.
	Prepare func() error
	// Unable says why nothing can be measured here, "" if it can; nil is never.
	Unable func() string
	// Unmeasured adds the figures of a section that cannot be measured, with the
	// reason. It may be nil if Unable is and no section needs programs.
	Unmeasured func(section, why string)
}

// A Section is one measurement of a group.
type Section struct {
	Name, Title string
	Run         func() error
	Needs       []string // programs
}

// Names returns the names of a group's sections.
func (g *Group) Names() []string {
	var names []string
	for _, s := range g.Sections {
		names = append(names, s.Name)
	}
	return names
}

// Measure runs the sections asked for and cleans up.
func (r *Runner) Measure(g Group) (err error) {
	r.Group = &figures.Group{Name: g.Name, Title: g.Title}
	if r.Runs == 0 {
		r.Runs = g.Runs
	}
	unable := ""
	if g.Unable != nil {
		if unable = g.Unable(); unable != "" {
			r.Logf("nothing is measured: %s", unable)
		}
	}
	if unable == "" {
		if err := r.begin(); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, r.cleanUp()) }()
	}
	if unable == "" && g.Prepare != nil {
		if err := g.Prepare(); err != nil {
			return err
		}
	}
	for _, s := range g.Sections {
		if only, _, _ := strings.Cut(r.Only, "/"); only != "" && only != s.Name {
			continue
		}
		r.Logf("%s", s.Title)
		r.Now = &figures.Section{Name: s.Name, Title: s.Title, Command: r.commandFor(&g, s.Name)}
		r.Group.Sections = append(r.Group.Sections, r.Now)
		why := unable
		if why == "" {
			why = Lacking(s.Needs...)
		}
		if why != "" {
			g.Unmeasured(s.Name, why)
		} else if err := s.Run(); err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
	}
	return nil
}

func (r *Runner) begin() (err error) {
	if r.Imgfs, err = filepath.Abs(r.Imgfs); err != nil {
		return err
	}
	if r.self, err = os.Executable(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return err
	}
	r.Dir, err = filepath.EvalSymlinks(dir) // as the mount table has it
	return err
}

// commandFor returns the command that repeats a section.
func (r *Runner) commandFor(g *Group, section string) string {
	environment := ""
	if r.Corpora != "" {
		environment = "CORPORA=… "
	}
	return fmt.Sprintf("%sgo run ./testdata/bench %s -only %s -runs %d%s", environment, g.Name, cmp.Or(r.Only, section), r.Runs, g.Flags)
}

// AtEnd registers a function for the end of the group. The functions are called
// in reverse order after all mounts are gone.
func (r *Runner) AtEnd(stop func() error) { r.stops = append(r.stops, stop) }

// Add puts figures into the section that runs.
func (r *Runner) Add(f ...figures.Figure) { r.Now.Add(f...) }

// Note puts a line below the title of the section that runs.
func (r *Runner) Note(format string, args ...any) { r.Now.Note(format, args...) }

// Lacking says which programs are not installed; "" if all are.
func Lacking(programs ...string) string {
	var missing []string
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			missing = append(missing, p)
		}
	}
	if missing == nil {
		return ""
	}
	return "not installed: " + strings.Join(missing, ", ")
}

// Node returns the image with many files: the lab's node, or one that is made
// below dir unless it is there. Its name in the registry is "node".
func (r *Runner) Node(dir string) (img *labimage.Image, what string, err error) {
	if r.Corpora != "" {
		img, err = labimage.Open(filepath.Join(r.Corpora, "built", "node"))
		return img, "node of the lab", err
	}
	layout := filepath.Join(dir, "node", "layout")
	if err := Once(layout, r.System.Write); err != nil {
		return nil, "", err
	}
	img, err = labimage.Open(layout)
	return img, "made by testdata/labimage", err
}

// Once makes a file or directory, unless a run before has done so.
func Once(path string, make func(part string) error) error {
	if _, err := os.Lstat(path); err == nil {
		return nil
	}
	part := path + ".part" // of a run that was interrupted, if it exists
	if err := errors.Join(os.RemoveAll(part), os.MkdirAll(filepath.Dir(path), 0o777)); err != nil {
		return err
	}
	if err := make(part); err != nil {
		return err
	}
	return os.Rename(part, path)
}

// cleanUp ends all mounts and processes of the group, and removes its directory.
func (r *Runner) cleanUp() error {
	r.Ctx = context.WithoutCancel(r.Ctx)
	table, err := os.ReadFile("/proc/self/mountinfo")
	for _, dir := range MountsBelow(string(table), r.Dir) {
		if Detach(dir) != nil { // a plain user
			_, e := r.Output(r.Imgfs, "umount", "--lazy", dir)
			err = errors.Join(err, e)
		}
	}
	for end := time.Now().Add(10 * time.Second); len(r.Servers(r.Dir)) > 0; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			for _, pid := range r.Servers(r.Dir) {
				err = errors.Join(err, fmt.Errorf("process %d had to be killed", pid), syscall.Kill(pid, syscall.SIGKILL))
			}
			break
		}
	}
	for i := len(r.stops) - 1; i >= 0; i-- {
		err = errors.Join(err, r.stops[i]())
	}
	if err != nil {
		return err // something may still be mounted in it
	}
	return os.RemoveAll(r.Dir)
}
