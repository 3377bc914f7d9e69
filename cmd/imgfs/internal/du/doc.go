// Package du adds up what files of an image take, as du(1) of coreutils does.
package du
