package registry_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
)

// The faults of docs/faults.md, by their numbers there.
func TestFault00None(t *testing.T)            { testFaults(t, "none") }
func TestFault01RangeIgnored(t *testing.T)    { testFaults(t, "01") }
func TestFault02OtherRange(t *testing.T)      { testFaults(t, "02") }
func TestFault03NoContentRange(t *testing.T)  { testFaults(t, "03") }
func TestFault04OtherLength(t *testing.T)     { testFaults(t, "04") }
func TestFault05Reset(t *testing.T)           { testFaults(t, "05") }
func TestFault06Truncated(t *testing.T)       { testFaults(t, "06") }
func TestFault07StreamReset(t *testing.T)     { testFaults(t, "07") }
func TestFault08Stall(t *testing.T)           { testFaults(t, "08") }
func TestFault09NoHead(t *testing.T)          { testFaults(t, "09") }
func TestFault11IdleConnections(t *testing.T) { testFaults(t, "11") }
func TestFault12TokenRefused(t *testing.T)    { testFaults(t, "12") }
func TestFault13OtherRefusal(t *testing.T)    { testFaults(t, "13") }
func TestFault14TokenServer(t *testing.T)     { testFaults(t, "14") }
func TestFault16Redirect(t *testing.T)        { testFaults(t, "16") }
func TestFault17URLExpired(t *testing.T)      { testFaults(t, "17") }
func TestFault18RedirectLoop(t *testing.T)    { testFaults(t, "18") }
func TestFault19Wait(t *testing.T)            { testFaults(t, "19") }
func TestFault20ServerErrors(t *testing.T)    { testFaults(t, "20") }
func TestFault22CaptivePortal(t *testing.T)   { testFaults(t, "22") }
func TestFault23FlippedBit(t *testing.T)      { testFaults(t, "23") }
func TestFault24ContentEncoding(t *testing.T) { testFaults(t, "24") }
func TestFault25BlobGone(t *testing.T)        { testFaults(t, "25") }

// moreFaultCases are cases besides those of faultCases.
func moreFaultCases() []faultCase {
	once, times, always := registrytest.Once, registrytest.Times, registrytest.Always
	cdn := registrytest.Options{CDN: true}
	bearer := registrytest.Options{Login: registrytest.Bearer}
	header := func(edit func(http.Header)) registrytest.Fault { return registrytest.Header(edit) }
	goAway := header(func(h http.Header) { h.Set("Connection", "close") })
	unavailable := remote.ErrUnavailable
	return []faultCase{
		{name: "01 range ignored, and broken off", fault: inject(func(n int) registrytest.Fault { return whole(registrytest.Truncate(n * 30_000)) }), most: 5},
		{name: "02 other total for ever", fault: inject(always(header(otherTotal))), most: 4},
		{name: "03 no Content-Range for ever", fault: inject(always(header(noRange))), most: 4},
		{name: "03 multipart, other start", fault: inject(once(registrytest.Multipart(otherStart))), most: 2},
		{name: "03 multipart, other total for ever", fault: inject(always(registrytest.Multipart(otherTotal))), most: 4, want: unavailable},
		{name: "03 multipart, no Content-Range for ever", fault: inject(always(registrytest.Multipart(noRange))), most: 4, want: unavailable},
		{name: "03 multipart without parts for ever", fault: inject(always(header(noParts))), most: 4},
		{name: "03 multipart without a boundary for ever", fault: inject(always(header(noBoundary))), most: 4},
		{name: "07 stream reset", fault: inject(times(3, registrytest.Truncate(readLen/4))), most: 4},
		{name: "07 stream reset before the head", fault: inject(times(2, abort)), most: 5},
		{name: "07 GOAWAY with each answer", fault: inject(always(goAway)), most: 1},
		{name: "07 connection gone with all streams", fault: func(s *registrytest.Server) func(int) registrytest.Fault { return times(2, hangUp(s)) }, most: 5},
		{name: "08 stall in the body for ever", quick: true, fault: func(s *registrytest.Server) func(int) registrytest.Fault { return always(s.Stall(100)) }, most: 6, want: unavailable},
		{name: "09 no head for ever", quick: true, fault: func(s *registrytest.Server) func(int) registrytest.Fault { return always(s.Stall(-1)) }, most: 6, want: unavailable},
		{name: "14 token server never answers", server: bearer, quick: true, kind: registrytest.Token, before: (*registrytest.Server).RevokeTokens,
			fault: func(s *registrytest.Server) func(int) registrytest.Fault { return times(1, s.Stall(-1)) }, most: 8, tokens: 2},
		{name: "14 token server answers 429", server: bearer, kind: registrytest.Token, before: (*registrytest.Server).RevokeTokens,
			fault: inject(once(registrytest.Status(429))), most: 4, tokens: 2},
		{name: "17 URL expired, answered 401", server: cdn, fault: inject(once(registrytest.Status(401))), most: 3},
		{name: "17 URL expired, answered 410", server: cdn, fault: inject(once(registrytest.Status(410))), most: 3},
		{name: "22 login page of the right length", fault: inject(once(loginPage)), most: 2, sums: true},
		{name: "22 login page of the right length for ever", fault: inject(always(loginPage)), most: 2, want: remote.ErrDigest, sums: true},
		{name: "23 flipped bit", fault: inject(once(registrytest.FlipBit())), most: 2, sums: true},
		{name: "23 flipped bit from storage", server: cdn, fault: inject(once(registrytest.FlipBit())), most: 3, sums: true},
		{name: "23 flipped bit for ever", fault: inject(always(registrytest.FlipBit())), most: 2, want: remote.ErrDigest, sums: true},
		{name: "23 flipped bit in a whole blob", fault: inject(once(whole(registrytest.FlipBit()))), most: 2, sums: true},
		{name: "25 other size", fault: inject(always(whole(header(func(h http.Header) { h.Set("Content-Length", fmt.Sprint(blobSize-1)) })))), most: 4, want: unavailable},
	}
}

func otherTotal(h http.Header) {
	h.Set("Content-Range", strings.Replace(h.Get("Content-Range"), fmt.Sprint("/", blobSize), fmt.Sprint("/", blobSize+1), 1))
}

func otherStart(h http.Header) {
	h.Set("Content-Range", strings.Replace(h.Get("Content-Range"), fmt.Sprint("bytes ", readOff), fmt.Sprint("bytes ", readOff+1), 1))
}

func noRange(h http.Header) { h.Del("Content-Range") }

func noParts(h http.Header) { h.Set("Content-Type", "multipart/byteranges; boundary=x") }

func noBoundary(h http.Header) { h.Set("Content-Type", "multipart/byteranges") }

// abort resets the stream, or connection, before the head of an answer.
func abort(http.ResponseWriter, *http.Request, http.HandlerFunc) { panic(http.ErrAbortHandler) }

// hangUp ends all connections in the middle of a body.
func hangUp(s *registrytest.Server) registrytest.Fault {
	stall := s.Stall(readLen / 3)
	return func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		time.AfterFunc(time.Millisecond, s.CloseConnections)
		stall(w, r, serve)
	}
}

// loginPage answers a range as it should, but for what is in it.
func loginPage(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
	registrytest.Header(func(h http.Header) { h.Set("Content-Type", "text/html") })(w, r, func(w http.ResponseWriter, r *http.Request) {
		serve(&pageWriter{ResponseWriter: w}, r)
	})
}

// A pageWriter puts a web page in the place of each byte.
type pageWriter struct{ http.ResponseWriter }

func (w *pageWriter) Write(p []byte) (int, error) {
	return w.ResponseWriter.Write([]byte(strings.Repeat("<p>Please log in</p>", len(p)/20+1)[:len(p)]))
}
