//go:build linux

package fusefs

import (
	"errors"
	"slices"
	"strings"
)

// Recovery returns "on" if another server can go on with the mount when this one dies, or
// else the reason why not.
func (s *Server) Recovery() string {
	switch {
	case s.kept != nil:
		return "on"
	case s.wanted:
		return "io_uring takes its requests"
	}
	return "turned off"
}

// Refused returns the paths of files of which requests fail with EIO, because servers have
// died of such requests.
func (s *Server) Refused() (paths []string) {
	if s.kept == nil || s.held != nil && !s.held.open.Load() {
		return nil
	}
	for _, r := range s.kept.now().Refused {
		paths = append(paths, "/"+strings.TrimPrefix(pathOf(s.raw.tree, r.Node), "/"))
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

// keep notes what the next server needs to know of a mount.
func (s *Server) keep(opts *Options, shown bool) error {
	if s.kept == nil {
		return nil
	}
	return s.kept.update(func(k *keptState) {
		k.Mount, k.Helper, k.ReadAhead = keepMount(s.at), s.at.helper, text(s.readAhead)
		k.Early, k.Shown = s.held != nil, shown
		k.Planned, k.Depth = s.planned, s.depth
		k.Passthrough, k.Why = s.raw.pass != nil, text(s.raw.plan.why)
		if shown {
			k.Identity = opts.Identity
		}
	})
}

// text returns the text of an error, "" for nil.
func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// asError is the error of a text that text has returned.
func asError(text string) error {
	if text == "" {
		return nil
	}
	return errors.New(text)
}
