package registry

import "context"

// remembered returns a function that calls get until it gives a value, one
// caller at a time, and then returns that value. An error is not remembered: a
// file that could not be read may be right the next time, in the life of a mount.
func remembered[T any](get func(context.Context) (T, error)) func(context.Context) (T, error) {
	mu := newCtxMutex()
	var done bool
	var value T
	return func(ctx context.Context) (T, error) {
		if err := mu.lock(ctx); err != nil {
			var none T
			return none, err
		}
		defer mu.unlock()
		if done {
			return value, nil
		}
		v, err := get(ctx)
		if err == nil {
			value, done = v, true
		}
		return v, err
	}
}
