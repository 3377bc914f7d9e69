package serve

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/holder"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/fs/fusefs"
	"github.com/opencontainers/go-digest"
)

// What is known of a mount's health. Of those but HealthOK and HealthDown there are no
// stats.
const (
	HealthOK      = "ok"
	HealthDown    = "registry down" // as of its last request
	HealthWaiting = "waiting"       // for its image: imgfs mount --no-wait
	HealthStopped = "stopped"       // by SIGSTOP, or a debugger
	HealthHung    = "no answer"
	HealthAgain   = "restarting" // its server has died, and another one is on its way
	HealthDead    = "dead"       // no process serves it
	HealthHidden  = "hidden"     // something else is mounted over it
	HealthUnknown = "unknown"    // this user may not ask
)

// answerLimit is how long all mounts together may take to answer.
const answerLimit = 2 * time.Second

// A Running is a mounted image as imgfs ps --json prints it. What is not known is
// missing.
type Running struct {
	Image      string         `json:"image"`
	ImageBytes show.NameBytes `json:"imageBytes,omitempty"`
	Manifest   digest.Digest  `json:"manifest,omitempty"`
	Platform   string         `json:"platform,omitempty"`
	Dir        string         `json:"dir"`
	DirBytes   show.NameBytes `json:"dirBytes,omitempty"`
	// Also are where the same mount, or a part of it, can be found besides: its bind
	// mounts.
	Also      []string         `json:"also"`
	AlsoBytes []show.NameBytes `json:"alsoBytes,omitempty"`
	Owner     string           `json:"owner"` // "root", or "user" and a number
	Since     time.Time        `json:"since,omitzero"`
	PID       int              `json:"pid,omitempty"`
	Memory    int64            `json:"memory,omitempty"` // resident bytes of that process
	// Recovery says whether the mount outlives that process, and HolderMemory are the
	// resident bytes of the one that would start another.
	Recovery     *RecoveryState `json:"recovery,omitempty"`
	HolderMemory int64          `json:"holderMemory,omitempty"`
	Fetched      int64          `json:"fetched"` // bytes that came over the network
	Prefetch     *PrefetchState `json:"prefetch,omitempty"`
	Health       string         `json:"health"`
	// Why says why a mount is dead, or is not served at the moment. Of one that is stopped it
	// says which process is, if that is not PID.
	Why string `json:"why,omitempty"`
	// Engine is missing if it was mounted for none.
	Engine Engine `json:"engine,omitzero"`

	// Own says whether this user has mounted it.
	Own bool `json:"-"`
}

// Mounted returns the mounts that this process can see and that want takes, in the
// order of their mounting. It asks all of them at once, and none longer than two
// seconds: whatever one of them does, the others are listed.
func Mounted(ctx context.Context, want func(fusefs.MountPoint) bool) ([]Running, error) {
	groups, err := mountedTrees(want)
	if err != nil {
		return nil, err
	}
	all := make([]Running, len(groups))
	limited, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	var asked sync.WaitGroup
	for i, g := range groups {
		asked.Go(func() { all[i] = newRunning(limited, g) })
	}
	asked.Wait() // each ends with its context
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	findServers(ctx, all, groups)
	return all, nil
}

// MountedOn returns the directories of the mounts that Mounted has, and asks none of them.
func MountedOn(want func(fusefs.MountPoint) bool) ([]string, error) {
	groups, err := mountedTrees(want)
	dirs := make([]string, len(groups))
	for i, g := range groups {
		dirs[i] = g[0].Place()
	}
	return dirs, err
}

// mountedTrees returns the places of each mounted tree that want takes.
func mountedTrees(want func(fusefs.MountPoint) bool) ([][]fusefs.MountPoint, error) {
	points, err := fusefs.Mounts()
	return sameTree(slices.DeleteFunc(points, func(p fusefs.MountPoint) bool { return !want(p) })), err
}

// sameTree gathers the mounts of one file system, the original first, as far as the
// table tells.
func sameTree(points []fusefs.MountPoint) (groups [][]fusefs.MountPoint) {
	at := make(map[string]int)
	for _, p := range points {
		i, known := at[p.Device]
		switch {
		case !known:
			at[p.Device] = len(groups)
			groups = append(groups, []fusefs.MountPoint{p})
		case p.Part == "/" && groups[i][0].Part != "/":
			groups[i] = slices.Insert(groups[i], 0, p)
		default:
			groups[i] = append(groups[i], p)
		}
	}
	return groups
}

// newRunning asks a mount, which may be in several places, for its stats.
func newRunning(ctx context.Context, places []fusefs.MountPoint) Running {
	var s Stats
	err := fusefs.ErrHidden
	for _, p := range places {
		if p.Part != "/" {
			continue // that is not the root, which answers
		}
		if s, err = askStats(ctx, p); !errors.Is(err, fusefs.ErrHidden) {
			break
		}
	}
	if i := slices.IndexFunc(places, func(p fusefs.MountPoint) bool { return p.Dir == s.Dir }); i > 0 {
		places[0], places[i] = places[i], places[0]
	}
	first := places[0]
	r := Running{Image: first.Name, Dir: first.Place(), Also: []string{}, Owner: first.Owner, Health: healthOf(err), Own: first.Own()}
	for _, p := range places[1:] {
		r.Also = append(r.Also, p.Dir)
	}
	if err != nil {
		return r
	}
	r.Image, r.Manifest, r.Platform, r.Since, r.PID = s.Image, s.Manifest, s.Platform, s.Since, s.PID
	r.Recovery = &s.Recovery
	r.Fetched = s.Total.Fetched + s.Total.Indexed + s.Total.Meta
	if s.Prefetch.State != "off" {
		r.Prefetch = &s.Prefetch
	}
	switch {
	case s.Opening:
		r.Health = HealthWaiting
	case slices.ContainsFunc(s.Servers, func(h ServerState) bool { return h.Down }):
		r.Health = HealthDown
	}
	return r
}

// healthOf says what became of asking for stats.
func healthOf(err error) string {
	switch {
	case err == nil:
		return HealthOK
	case errors.Is(err, fusefs.ErrDead):
		return HealthDead
	case errors.Is(err, fusefs.ErrHidden):
		return HealthHidden
	case errors.Is(err, fusefs.ErrNoAnswer), errors.Is(err, context.Canceled):
		return HealthHung
	}
	return HealthUnknown
}

// findServers finds the processes of the mounts, and what they tell of themselves.
func findServers(ctx context.Context, all []Running, groups [][]fusefs.MountPoint) {
	var servers map[string]int
	limited, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	for i := range all {
		r := &all[i]
		if r.Health == HealthDead {
			r.Why = goneReason(limited, groups[i][0])
			continue
		}
		var silent *holder.SilentError
		if r.Health == HealthHung {
			errors.As(r.askHolder(limited, groups[i][0]), &silent)
		}
		if r.PID == 0 {
			if servers == nil {
				servers = fusefs.Servers(ctx)
			}
			if r.PID = servers[groups[i][0].Device]; r.PID == 0 {
				r.PID = serverByName(r)
			}
		}
		p, ok := lookAt(r.PID)
		if !ok {
			r.PID = 0 // it is in another namespace, or gone by now
			if silent != nil && silent.Stopped {
				r.Health, r.Why = HealthStopped, fmt.Sprintf("%v; kill -CONT %d", silent, silent.PID)
			}
			continue
		}
		r.Memory = p.memory
		if r.Recovery != nil {
			h, _ := lookAt(r.Recovery.Holder)
			r.HolderMemory = h.memory
		}
		if r.Health == HealthHung && p.stopped {
			r.Health = HealthStopped
		}
	}
}
