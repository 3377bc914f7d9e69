// Package hostile makes images and registries that attack whoever opens them,
// by their size, their shape or their manners, each from a few lines and a
// number that says how much of it.
//
// TestHostile runs the command imgfs on all of them under limits, and judges
// how each run ends and what it takes. It prints a table. In make nightly
// the attacks have their full size (IMGFS_HOSTILE=full), else a small one with
// smaller limits.
package hostile
