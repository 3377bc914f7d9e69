package metrics

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"
)

const (
	// scrapeLimit is how long collecting may take. Prometheus waits for ten seconds.
	scrapeLimit = 3 * time.Second
	// maxScrapes is how many requests are answered at a time.
	maxScrapes = 16
	// maxConnections is how many are open at a time.
	maxConnections = 64
	// endLimit is how long answers may take after the server has been told to end.
	endLimit = time.Second
)

// Path is where metrics are.
const Path = "/metrics"

// Serve answers GET and HEAD of Path on a listener with what collect returns, until ctx
// ends, and closes the listener. collect is called by several goroutines, and ends with its
// context.
func Serve(ctx context.Context, l net.Listener, collect func(ctx context.Context) []Family) error {
	turns := make(chan struct{}, maxScrapes)
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+Path, func(w http.ResponseWriter, r *http.Request) { // and HEAD
		select {
		case turns <- struct{}{}:
			defer func() { <-turns }()
		default:
			http.Error(w, "too many scrapes at a time", http.StatusServiceUnavailable)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), scrapeLimit)
		defer cancel()
		answer(w, collect(ctx))
	})
	server := &http.Server{
		Handler: mux, ErrorLog: log.New(io.Discard, "", 0), MaxHeaderBytes: 16 << 10,
		ReadTimeout: 5 * time.Second, WriteTimeout: scrapeLimit + 5*time.Second, IdleTimeout: 2 * time.Minute,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	var open atomic.Int64
	server.ConnState = func(c net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			if open.Add(1) > maxConnections {
				_ = c.Close() // there are others already
			}
		case http.StateClosed, http.StateHijacked:
			open.Add(-1)
		}
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), endLimit)
	defer cancel()
	if err := server.Shutdown(ending); err != nil {
		_ = server.Close() // it has waited
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func answer(w http.ResponseWriter, families []Family) {
	text, err := Text(families)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", ContentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	_, _ = w.Write(text) // who asks has gone
}
