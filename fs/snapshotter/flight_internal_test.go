package snapshotter

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestFlights: one call is made for all that want a result, and a failure is remembered for
// a while.
func TestFlights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls []Image
		fails := errors.New("as it comes")
		f := flights[int]{failed: time.Minute, keep: 2, call: func(ctx context.Context, img Image) (int, error) {
			calls = append(calls, img)
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
				return 0, ctx.Err()
			}
			if img.Ref == "bad" {
				return 0, fails
			}
			return len(img.Ref), nil
		}}
		ask := func(ref string) (int, error) {
			fl, err := f.begin(t.Context(), Image{Ref: ref})
			if err != nil {
				t.Fatal(err)
			}
			return fl.wait(t.Context())
		}
		expect := func(n int) {
			t.Helper()
			synctest.Wait()
			if len(calls) != n {
				t.Errorf("%d calls, want %d: %v", len(calls), n, calls)
			}
		}
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				if n, err := ask("good"); n != 4 || err != nil {
					t.Errorf("%d, %v", n, err)
				}
			})
		}
		all.Wait()
		expect(1)
		if _, err := ask("bad"); !errors.Is(err, fails) || !errors.Is(f.failure(Image{Ref: "bad"}), fails) {
			t.Errorf("%v, and remembered %v", err, f.failure(Image{Ref: "bad"}))
		}
		time.Sleep(59 * time.Second)
		if _, err := ask("bad"); !errors.Is(err, fails) {
			t.Error(err)
		}
		expect(2)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if err := f.failure(Image{Ref: "bad"}); err != nil {
			t.Errorf("remembered after a minute: %v", err)
		}
		if _, err := ask("bad"); !errors.Is(err, fails) {
			t.Error(err)
		}
		expect(3)

		// A call that was stopped is forgotten.
		stopped, err := f.begin(t.Context(), Image{Ref: "stopped"})
		if err != nil {
			t.Fatal(err)
		}
		f.stop(Image{Ref: "stopped"})
		if _, err := stopped.wait(t.Context()); !errors.Is(err, context.Canceled) {
			t.Errorf("stopped: %v", err)
		}
		if n, err := ask("stopped"); n != 7 || err != nil {
			t.Errorf("begun again: %d, %v", n, err)
		}
		expect(5)

		// Who leaves does not end it for others.
		ctx, leave := context.WithCancel(t.Context())
		fl, err := f.begin(ctx, Image{Ref: "left"})
		if err != nil {
			t.Fatal(err)
		}
		leave()
		if _, err := fl.wait(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("who has left: %v", err)
		}
		if n, err := ask("left"); n != 4 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
		expect(6)

		// The oldest result goes first.
		ask("new")
		ask("newer")
		expect(8)
		ask("left")
		expect(9)
		ask("newer")
		expect(9)

		f.begin(t.Context(), Image{Ref: "cut off"})
		f.close()
		if _, err := f.begin(t.Context(), Image{Ref: "good"}); !errors.Is(err, errClosed) {
			t.Errorf("after close: %v", err)
		}
		time.Sleep(time.Hour) // timers
	})
}
