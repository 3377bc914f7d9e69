package bundle

import "fmt"

// A Reason is why an image cannot be run as asked.
type Reason int

// The reasons.
const (
	BadConfig     Reason = iota + 1 // the image's config cannot be used
	BadPlatform                     // it is for another system or processor
	BadVariable                     // a variable or argument that no program can be given
	NoCommand                       // neither the image nor the user has named one
	NotFound                        // the command is not in the image
	NotExecutable                   // the command is in the image and cannot be executed
	BadUser                         // the image does not have the user or group
	Unmapped                        // the user namespace does not have the user or group
	BadWorkdir                      // the working directory is not there, or is none
	NoMountpoint                    // nothing can be mounted where it has to be
)

// An Error says why an image cannot be run as asked. Its text is harmless to a terminal.
type Error struct {
	Reason Reason
	text   string
}

// Error implements error.
func (e *Error) Error() string { return e.text }

// Status returns the exit status that podman run and docker run have for it: 127 for a
// command that is not found, 126 for what the runtime would refuse, and 125.
func (e *Error) Status() int {
	switch e.Reason {
	case NotFound:
		return 127
	case NotExecutable, BadUser, Unmapped, BadWorkdir, NoMountpoint:
		return 126
	}
	return 125
}

// refuse returns an *Error. What strangers have written is made printable by the caller.
func refuse(reason Reason, format string, args ...any) error {
	return &Error{Reason: reason, text: fmt.Sprintf(format, args...)}
}
