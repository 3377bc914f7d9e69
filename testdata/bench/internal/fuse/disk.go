package fuse

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/imgfs/imgfs/testdata/bench/internal/runner"
)

// diskInodes is how many files the file system may have.
const diskInodes = 600_000

// place finds the directory that everything lies in that is read: so all
// systems have the same disk below them. It is an ext4: the machine's own, or
// one in a file, which is slower than it has to be and so makes peers look bad.
func (b *bench) place() error {
	if err := os.MkdirAll(b.Work, 0o777); err != nil {
		return err
	}
	b.disk = b.Work
	kind, err := b.fileSystem(b.Work)
	if err != nil || kind == "ext4" && !b.Loop {
		return err
	}
	if why := runner.Lacking("mkfs.ext4", "mount"); why != "" {
		b.Logf("no file system of its own: %s", why)
		return nil
	}
	file, dir := filepath.Join(b.Work, "disk.ext4"), filepath.Join(b.Dir, "disk")
	if err := errors.Join(runner.Once(file, b.makeDisk), os.Mkdir(dir, 0o777)); err != nil {
		return err
	}
	if err := b.mountLoop(file, dir); err != nil {
		b.Logf("no file system of its own: %v", err)
		return b.Ctx.Err()
	}
	b.disk = dir
	return nil
}

// makeDisk makes a file with an ext4 that has nothing left to do later.
func (b *bench) makeDisk(part string) error {
	if err := os.WriteFile(part, nil, 0o600); err != nil {
		return err
	}
	if err := os.Truncate(part, b.diskSize); err != nil {
		return err
	}
	_, err := b.Output("mkfs.ext4", "-q", "-F", "-m", "0", "-N", fmt.Sprint(min(diskInodes, b.diskSize>>14)),
		"-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard", part)
	return err
}

// mountLoop mounts an ext4 in a file by way of a loop device, which is free
// again when nothing is mounted there any more, however that comes about.
func (b *bench) mountLoop(file, dir string) error {
	// Times of reading would be written while others are measured. The device
	// reads through the cache, twice as much as a disk would: past it
	// (losetup --direct-io) listing a tree takes several times as long, because
	// nothing is read ahead.
	_, err := b.Output("mount", "-t", "ext4", "-o", "loop,noatime,nosuid,nodev", file, dir)
	return err
}

// fileSystem returns the type of the file system of a directory.
func (b *bench) fileSystem(dir string) (string, error) {
	out, err := b.Output("df", "--output=fstype", dir)
	if err != nil {
		return "", err
	}
	_, kind, _ := strings.Cut(strings.TrimSpace(out), "\n")
	return kind, nil
}
