// Package testenv is what tests need of the machine that they run on: a small
// disk, files that others made, a directory that other users can enter. A test
// that finds it missing is skipped, or fails where CI=true.
package testenv
