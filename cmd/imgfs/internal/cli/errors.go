package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// Exit codes of the program.
const (
	ExitOK      = 0
	ExitFailure = 1
	ExitUsage   = 2
)

// An ExitError ends the command with a code; 0 is the one with which the command fails
// (Command.Failure). The reason has been printed.
type ExitError struct{ Code int }

// Error implements error.
func (e *ExitError) Error() string { return fmt.Sprintf("exit code %d", e.Code) }

// A failure is the error of a command that fails with a code of its own.
type failure struct {
	error
	code int
}

// Unwrap returns the error itself.
func (f *failure) Unwrap() error { return f.error }

// WithCode returns an error that ends the command with an exit code of its own.
func WithCode(err error, code int) error { return &failure{err, code} }

// A usageError says that the command line itself is wrong.
type usageError struct{ msg string }

// Error implements error.
func (e *usageError) Error() string { return e.msg }

// Usagef returns an error about the command line itself. The program prints it with
// a hint to the command's help, and ends with ExitUsage.
func Usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// usageHint is Usagef with what to type.
func usageHint(hint, format string, args ...any) error {
	return WithHint(Usagef(format, args...), hint)
}

// IsUsage reports whether an error says that the command line is wrong: one of
// Usagef, or one of pflag's.
func IsUsage(err error) bool {
	var (
		own      *usageError
		missing  *pflag.ValueRequiredError
		invalid  *pflag.InvalidValueError
		unknown  *pflag.NotExistError
		badShort *pflag.InvalidSyntaxError
	)
	return errors.As(err, &own) || errors.As(err, &missing) || errors.As(err, &invalid) ||
		errors.As(err, &unknown) || errors.As(err, &badShort)
}

// Describe returns the text of an error for people.
func Describe(err error) string {
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

// A hintedError is an error with a hint.
type hintedError struct {
	error
	hint string
}

// Unwrap returns the error itself.
func (h *hintedError) Unwrap() error { return h.error }

// WithHint returns an error that is printed with a hint: a remedy, or the words to
// type.
func WithHint(err error, hint string) error { return &hintedError{err, hint} }

// hintFor returns the hint for an error, or "".
func (e *Env) hintFor(err error) string {
	var own *hintedError
	switch {
	case errors.As(err, &own):
		return own.hint
	case e.Hint != nil:
		return e.Hint(err)
	}
	return ""
}
