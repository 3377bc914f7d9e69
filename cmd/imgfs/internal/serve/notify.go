package serve

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// What a service manager is told; see sd_notify(3). Without one nothing is sent.
const (
	notifyReady    = daemon.SdNotifyReady
	notifyStopping = daemon.SdNotifyStopping
)

// Managed reports whether a service manager waits for this process to say that it is
// ready.
func Managed() bool { return os.Getenv("NOTIFY_SOCKET") != "" }

// notify tells the service manager, if there is one.
func notify(states ...string) {
	// If it does not listen there is nobody to tell.
	_, _ = daemon.SdNotify(false, strings.Join(states, "\n"))
}

// Ready tells the service manager that this process does what it is for, and in a line what
// that is.
func Ready(status string) { notify(notifyReady, notifyStatus(status)) }

// notifyStatus is a line that says what the process does.
func notifyStatus(line string) string {
	return "STATUS=" + strings.ReplaceAll(line, "\n", " ")
}

// notifyLonger asks for time, from now on.
func notifyLonger(d time.Duration) string {
	return fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", (d + notifyMargin).Microseconds())
}

// notifyMargin is what is asked for beyond the time that something should take.
const notifyMargin = 10 * time.Second

// Starting asks the service manager for patience until stop is called: to index an image
// takes as long as it takes, and gives up by itself when nothing comes.
func Starting(status string) (stop func()) {
	if !Managed() {
		return func() {}
	}
	const every = 5 * time.Second
	done := make(chan struct{})
	go func() {
		for {
			notify(notifyStatus(status), notifyLonger(2*every))
			select {
			case <-done:
				return
			case <-time.After(every):
			}
		}
	}()
	return func() { close(done) }
}
