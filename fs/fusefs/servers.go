//go:build linux

package fusefs

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Servers returns which process serves which mount, by [MountPoint].Device, as far as
// this user can see and the kernel tells it: of newer ones the descriptors of the
// FUSE device say whose they are. It gives up after 2 s.
func Servers(ctx context.Context) map[string]int {
	found, _ := Ask(ctx, func(ctx context.Context) (map[string]int, error) {
		found := make(map[string]int)
		for _, proc := range processes() {
			if ctx.Err() != nil {
				break
			}
			pid, err := strconv.Atoi(filepath.Base(proc))
			if err != nil {
				continue
			}
			connections := connectionsOf(proc)
			if len(connections) > 0 && keeps(proc) {
				continue
			}
			for _, device := range connections {
				if _, taken := found[device]; !taken {
					found[device] = pid
				}
			}
		}
		return found, nil
	})
	return found
}

// HolderCommand is the first argument of processes that only keep a mount's descriptors for
// the next server (cmd/imgfs/internal/holder).
const HolderCommand = "__hold"

// keeps reports whether a process only keeps descriptors for servers: a holder, and a
// service manager with its store.
func keeps(proc string) bool {
	if name, err := os.ReadFile(filepath.Join(proc, "comm")); err == nil && string(name) == "systemd\n" {
		return true
	}
	text, err := os.ReadFile(filepath.Join(proc, "cmdline"))
	words := bytes.SplitN(text, []byte{0}, 3)
	return err == nil && len(words) > 1 && string(words[1]) == HolderCommand
}

// connectionsOf returns the devices of the mounts that a process answers for.
func connectionsOf(proc string) (devices []string) {
	fds, err := os.ReadDir(filepath.Join(proc, "fd"))
	if err != nil {
		return nil
	}
	for _, fd := range fds {
		if to, err := os.Readlink(filepath.Join(proc, "fd", fd.Name())); err != nil || filepath.Base(to) != "fuse" {
			continue
		}
		info, err := os.ReadFile(filepath.Join(proc, "fdinfo", fd.Name()))
		if err != nil {
			continue
		}
		for line := range bytes.Lines(info) {
			// fs/fuse/dev.c of Linux, fuse_dev_show_fdinfo: the number of the
			// device, whose major number is 0.
			if n, ok := strings.CutPrefix(string(line), "fuse_connection:"); ok {
				devices = append(devices, "0:"+strings.TrimSpace(n))
			}
		}
	}
	return devices
}
