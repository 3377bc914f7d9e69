// Package treediff compares two trees of files, such as those of two tags of an
// image, and tells path by path what is not the same.
//
//	for c, err := range treediff.Compare(ctx, a.Root(), b.Root(), nil) {
//		if err != nil {
//			return err
//		}
//		fmt.Println(c.Kind, c.Path, c.What)
//	}
//
// Contents are compared without reading them wherever that is possible: files of
// different sizes differ, those at the same place of the same layer do not, and of others
// the layers' indexes mostly know the digests. What is left is read on both sides.
//
// Nothing is kept of what was told but the first path of each inode with several, so the
// memory that a comparison takes does not grow with the number of changes.
package treediff
