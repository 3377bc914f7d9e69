// Package grep finds lines in files of an image, as grep(1) of GNU does.
//
// Files are searched side by side, in blocks of whole lines, and printed in their order.
// A pattern is RE2's. What every match of it contains, its literals, is looked for first:
// only lines that have one are matched.
package grep
