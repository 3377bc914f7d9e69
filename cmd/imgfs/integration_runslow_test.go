//go:build linux

package main

import (
	"net/http"
	"testing"
	"time"

	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// TestRunSlow: reads of a registry that takes its time succeed, whatever the numbers of the
// container's processes mean outside.
func TestRunSlow(t *testing.T) {
	t.Parallel()
	testenv.Slow(t)
	needFUSE(t)
	const pause = 60 * time.Millisecond // fusefs looks for who reads after 20 ms
	reg := registrytest.New(t, nil)
	layout := runnableWith(t, "busybox", manyFiles(12))
	if err := reg.PushLayout(layout, "app"); err != nil {
		t.Fatal(err)
	}
	name := reg.Host() + "/app:" + labimage.Tag
	for who, s := range runners(t) {
		for _, runtime := range []string{"crun", "bwrap"} {
			t.Run(who+" "+runtime, func(t *testing.T) {
				need(t, runtime)
				s := s.in(t)
				s.ok("index", name)
				s.dropBlobs()
				reg.Inject(registrytest.Blob, registrytest.Always(func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
					time.Sleep(pause)
					serve(w, r)
				}))
				r := s.run("run", "-q", "--runtime", runtime, "--entrypoint=", name, "sh", "-c", "for f in /f*; do sh -c \"cat $f\" | cat > /dev/null || exit; done; echo all")
				if r.code != 0 || r.stdout != "all\n" || r.stderr != "" {
					t.Errorf("got exit code %d, stdout %q, stderr\n%s", r.code, r.stdout, r.stderr)
				}
				reg.Inject(registrytest.Blob, nil)
				s.leavesNothing()
			})
		}
	}
}
