package holder

import (
	"runtime"
	"sync"
)

// spareThreads are how many threads a holder has besides those that wait. The runtime needs
// two at most: one processor hands them on, as many as wait in calls of the kernel, for
// signals and for descriptors.
const spareThreads = 4

// makeThreads makes threads in advance: the runtime ends a process that cannot have one more,
// which is just when no server can be started. It keeps those that are not used.
func makeThreads() {
	var there, gone sync.WaitGroup
	there.Add(spareThreads)
	end := make(chan struct{})
	for range spareThreads {
		gone.Go(func() {
			runtime.LockOSThread() // no other goroutine has it while this one waits
			there.Done()
			<-end
			runtime.UnlockOSThread() // else it would end
		})
	}
	there.Wait()
	close(end)
	gone.Wait()
}
