package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/imgfs/imgfs/fs/fusefs"
	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache"
	"github.com/spf13/pflag"
)

// errUsage marks what is wrong with the command line itself.
var errUsage = errors.New("usage")

type usageErr struct{ msg string }

func (e *usageErr) Error() string        { return e.msg }
func (e *usageErr) Is(target error) bool { return target == errUsage }

func usageError(msg string) error { return &usageErr{msg} }

func usageErrorf(format string, args ...any) error { return &usageErr{fmt.Sprintf(format, args...)} }

// isUsage tells whether the command line is at fault: pflag's errors have
// types of their own.
func isUsage(err error) bool {
	var (
		missing  *pflag.ValueRequiredError
		invalid  *pflag.InvalidValueError
		unknown  *pflag.NotExistError
		badShort *pflag.InvalidSyntaxError
	)
	return errors.Is(err, errUsage) || errors.As(err, &missing) || errors.As(err, &invalid) ||
		errors.As(err, &unknown) || errors.As(err, &badShort)
}

// withHelp hints to the help of a command, or of imgfs, if its command line is
// at fault.
func withHelp(err error, command string) error {
	if err == nil || !isUsage(err) {
		return err
	}
	return &hinted{err, strings.TrimSpace("imgfs help " + command)}
}

// describe is the text of an error for people.
func describe(err error) string {
	if errors.Is(err, context.Canceled) {
		return "interrupted"
	}
	text := strings.NewReplacer(
		"unexpected EOF", "it ends too early",
		"connect: connection refused", "connection refused",
	).Replace(err.Error())
	// A source names the blob, which has been named as the layer.
	parts := strings.Split(text, ": ")
	return strings.Join(slices.DeleteFunc(parts, func(part string) bool {
		blob, ok := strings.CutPrefix(part, "blob ")
		digest, _, _ := strings.Cut(blob, " ")
		return ok && strings.Contains(text, "layer "+digest+": ")
	}), ": ")
}

// A hinted error knows what to type instead.
type hinted struct {
	error
	hint string
}

func (h *hinted) Unwrap() error { return h.error }

// hintFor returns what the user can type about an error, or "".
func hintFor(err error) string {
	var own *hinted
	var mount *fusefs.Error
	switch {
	case errors.As(err, &own):
		return own.hint
	case errors.As(err, &mount):
		return mount.Hint
	case errors.Is(err, cache.ErrFull):
		return "give the cache more room, on the disk or with --cache-size SIZE"
	case errors.Is(err, layerindex.ErrTooBig), errors.Is(err, remote.ErrTooBig):
		return "allow more with --max-layer-size SIZE, or anything with --max-layer-size " + unlimited
	case errors.Is(err, layerindex.ErrMetadata):
		return "allow this image more memory with --max-metadata SIZE, if you trust it"
	case errors.Is(err, remote.ErrPlatform):
		return "choose one with --platform OS/ARCH[/VARIANT]"
	case errors.Is(err, layerindex.ErrDigest), errors.Is(err, layerindex.ErrDiffID), errors.Is(err, remote.ErrDigest):
		return "nothing of it was kept; try again, or ask whoever runs the registry"
	}
	return ""
}
