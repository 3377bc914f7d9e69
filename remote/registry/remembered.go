package registry

import "sync"

// remembered returns a function that calls get until it gives a value, one
// caller at a time, and then returns that. An error is not remembered: a file
// that could not be read may be right the next time, in the life of a mount.
func remembered[T any](get func() (T, error)) func() (T, error) {
	var mu sync.Mutex
	var done bool
	var value T
	return func() (T, error) {
		mu.Lock()
		defer mu.Unlock()
		if done {
			return value, nil
		}
		v, err := get()
		if err == nil {
			value, done = v, true
		}
		return v, err
	}
}
