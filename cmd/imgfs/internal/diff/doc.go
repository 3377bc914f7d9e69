// Package diff is how imgfs prints what two images differ in: as lines, as a table of
// bytes, as a patch, as JSON; and what changed in their package databases.
package diff
