package image_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/remote/sourcetest"
)

// BenchmarkHeld measures what recovery adds to a mount, and how long the next process takes
// to open the image: a large image, and one of many layers.
func BenchmarkHeld(b *testing.B) {
	for _, shape := range []struct{ layers, files int }{{10, 9000}, {60, 10}, {500, 10}} {
		b.Run(fmt.Sprintf("%d layers of %d files", shape.layers, shape.files), func(b *testing.B) {
			opts := image.Options{CacheDir: b.TempDir()}
			layers := make([]sourcetest.Layer, shape.layers)
			for i := range layers {
				var list []string
				for f := range shape.files {
					list = append(list, fmt.Sprintf("dir%d/%d/file%d", f%100, i, f), "x")
				}
				layers[i] = gzipLayer(b, list...)
			}
			s := serve(b, nil, sourcetest.Image{Layers: layers})
			opts.Registry = s.opts.Registry
			ref := s.reg.Host() + "/app:latest"
			img, err := image.Open(b.Context(), ref, &opts)
			if err != nil {
				b.Fatal(err)
			}
			img.Close()
			var warm, held, again time.Duration
			files, record := 0, int64(0)
			for b.Loop() {
				at := time.Now()
				img, err := image.Open(b.Context(), ref, &opts)
				if err != nil {
					b.Fatal(err)
				}
				warm += time.Since(at)
				at = time.Now()
				img.Identity()
				list, err := img.Held()
				if err != nil {
					b.Fatal(err)
				}
				held += time.Since(at)
				img.Close()
				st, err := list[0].File.Stat()
				if err != nil {
					b.Fatal(err)
				}
				files, record = len(list), st.Size()
				next := opts
				next.Held = list
				at = time.Now()
				if img, err = image.Open(b.Context(), ref, &next); err != nil {
					b.Fatal(err)
				}
				again += time.Since(at)
				img.Close()
				image.CloseHeld(list)
			}
			n := float64(b.N) * 1e6
			b.ReportMetric(float64(warm)/n, "warm-ms")
			b.ReportMetric(float64(held)/n, "held-ms")
			b.ReportMetric(float64(again)/n, "again-ms")
			b.ReportMetric(float64(files), "files")
			b.ReportMetric(float64(record), "record-B")
			b.ReportMetric(0, "ns/op")
		})
	}
}
