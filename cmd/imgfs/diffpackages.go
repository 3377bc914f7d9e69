package main

import (
	"bufio"
	"context"
	"fmt"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/diff"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/fs/packages"
)

// printPackages prints what changed in the package databases of two images. What one of
// them has in a database that cannot be read is not known, so the packages of that
// manager are not compared.
func (d *difference) printPackages(ctx context.Context) error {
	var read [2]map[packages.Kind][]packages.Package
	unread := make(map[packages.Kind]bool)
	found := d.same
	for i := range d.images {
		read[i] = make(map[packages.Kind][]packages.Package)
		if d.same {
			continue
		}
		databases, err := packages.Read(ctx, d.images[i].Tree())
		if err != nil {
			return err
		}
		for _, db := range databases {
			found = true
			if db.Err != nil {
				unread[db.Kind] = true
				d.env.Error(fmt.Errorf("%s: %s: %w", d.images[i].Name(), db.Path, db.Err))
			}
			read[i][db.Kind] = append(read[i][db.Kind], db.Packages...)
		}
	}
	if !found {
		return fmt.Errorf("no package database of dpkg, apk or rpm in %s, and none in %s", d.images[0].Name(), d.images[1].Name())
	}
	var changes []diff.Package
	for _, kind := range packages.Kinds {
		if unread[kind] {
			continue
		}
		for _, c := range packages.Compare(kind, read[0][kind], read[1][kind]) {
			changes = append(changes, diff.NewPackage(kind, c))
		}
	}
	if err := d.writePackages(ctx, changes); err != nil {
		return err
	}
	switch {
	case len(unread) > 0:
		return &cli.ExitError{}
	case len(changes) > 0:
		return &cli.ExitError{Code: exitDifferent}
	}
	return nil
}

func (d *difference) writePackages(ctx context.Context, changes []diff.Package) error {
	config := d.config(ctx)
	if !d.options.json {
		return diff.PrintPackages(config.Output, config, changes)
	}
	w := bufio.NewWriter(config.Output)
	array := show.NewArray(w)
	for _, c := range changes {
		if err := array.Add(c); err != nil {
			return err
		}
	}
	if err := array.Close(); err != nil {
		return err
	}
	return w.Flush()
}
