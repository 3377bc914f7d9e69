// Package packages reads which packages are installed in a tree, from the databases of
// dpkg, apk and rpm in it, and compares two trees by that.
//
//	before, err := packages.Read(ctx, a, nil)
//	after, err := packages.Read(ctx, b, nil)
//	changes := packages.Compare(before[0].Kind, before[0].Packages, after[0].Packages)
//
// What a database says is a stranger's word. Sizes and counts are bounded, nothing is
// executed, and a database that is damaged is an error of its own: the others are read.
//
// # Limits
//
// Of rpm's databases those in SQLite (rpm 4.16 and later) and ndb (SUSE) are read, and not
// those in Berkeley DB. A database has at most 512 MiB and 262,144 packages.
package packages
