package dockerdaemon

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/printable"
)

const (
	// askTime is how long an answer may take that says something of an image. The
	// image itself may take any time: podman's daemon writes all of it to its disk
	// before it sends the first byte.
	askTime = time.Minute
	// maxAnswer bounds what describes an image, and maxWords what is told of an error.
	maxAnswer = 16 << 20
	maxWords  = 300
	// platformsSince is the minor version of API 1 that can be asked for one platform of
	// an image.
	platformsSince = 48
)

// A daemon is the client of one.
type daemon struct {
	path   string // of its socket
	client *http.Client
	// version is that of the API, "" before it is asked, and minor what follows "1.".
	version string
	minor   int
}

// newDaemon returns the client of the daemon at an address, or of the one that is meant
// if that is "".
func newDaemon(address string) (*daemon, error) {
	h, err := findHost(address)
	if err != nil {
		return nil, err
	}
	path, err := h.socket()
	if err != nil {
		return nil, err
	}
	d := &daemon{path: path}
	d.client = &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", path)
			},
			DisableCompression:     true,
			MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return d, nil
}

func (d *daemon) close() { d.client.CloseIdleConnections() }

// get asks for a path of the API.
func (d *daemon) get(ctx context.Context, path string, query url.Values) (*http.Response, error) {
	if d.version != "" {
		path = "/v" + d.version + path
	}
	u := url.URL{Scheme: "http", Host: "docker", Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := d.client.Do(req)
	if err == nil {
		return resp, nil
	}
	var call *net.OpError
	var system *os.SyscallError
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("%w: the daemon does not answer", remote.ErrUnavailable)
	case errors.As(err, &call) && call.Op == "dial" && errors.As(err, &system):
		failed := &SocketError{Path: d.path, Err: system.Err}
		if errors.Is(system.Err, os.ErrNotExist) {
			failed.Others = others(d.path)
		}
		return nil, failed
	case errors.Is(err, io.EOF):
		return nil, fmt.Errorf("%w: the daemon at %s ends the connection without an answer", remote.ErrUnavailable, d.path)
	}
	return nil, &SocketError{Path: d.path, Err: errNoDaemon}
}

var apiVersion = regexp.MustCompile(`^1\.([0-9]{1,4})$`)

// negotiate asks for the daemon's version of the API. One that says none is asked by
// paths without a version.
func (d *daemon) negotiate(ctx context.Context) error {
	resp, err := d.get(ctx, "/_ping", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return d.refused(resp)
	}
	if m := apiVersion.FindStringSubmatch(resp.Header.Get("Api-Version")); m != nil {
		d.version = m[0]
		d.minor, _ = strconv.Atoi(m[1]) // digits
	}
	return nil
}

// found is what a daemon says of an image.
type found struct {
	ID string `json:"Id"`
	// Descriptor is that of the image in the store of containerd, if it is there. Then
	// the ID is the digest of a manifest or image index.
	Descriptor *struct {
		Digest string `json:"digest"`
	} `json:"Descriptor"`
}

// find returns what the daemon says of an image.
func (d *daemon) find(ctx context.Context, ref string) (image found, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	if err := d.negotiate(ctx); err != nil {
		return found{}, err
	}
	resp, err := d.get(ctx, "/images/"+ref+"/json", nil)
	if err != nil {
		return found{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return found{}, d.refused(resp)
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return found{}, fmt.Errorf("%w: the daemon's answer ends early", remote.ErrUnavailable)
	case len(answer) > maxAnswer:
		return found{}, fmt.Errorf("%w: the daemon's answer has more than %d bytes", remote.ErrUnsupported, maxAnswer)
	case json.Unmarshal(answer, &image) != nil:
		return found{}, &SocketError{Path: d.path, Err: errNoDaemon}
	case isID("sha256:" + image.ID): // podman once had none before it
		image.ID = "sha256:" + image.ID
	}
	if !isID(image.ID) {
		return found{}, fmt.Errorf("%w: the daemon gives the image the ID %.100q", remote.ErrUnsupported, image.ID)
	}
	return image, nil
}

// save has an image streamed, which begins when it is read.
func (d *daemon) save(ctx context.Context, id, platform string) (*stream, error) {
	query := url.Values{}
	if platform != "" && d.minor >= platformsSince {
		p, err := remote.ParsePlatform(platform)
		if err != nil {
			return nil, err
		}
		text, err := json.Marshal(p)
		if err != nil {
			return nil, err
		}
		query.Set("platform", string(text))
	}
	resp, err := d.get(ctx, "/images/"+id+"/get", query)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return &stream{body: resp.Body}, nil
	}
	defer resp.Body.Close()
	err = d.refused(resp)
	if errors.Is(err, remote.ErrNotFound) && query.Has("platform") {
		// Its ID was there a moment ago.
		err = fmt.Errorf("%w: %s", remote.ErrPlatform, strings.TrimPrefix(err.Error(), remote.ErrNotFound.Error()+": "))
	}
	return nil, err
}

// refused returns what an answer says that is no success.
func (d *daemon) refused(resp *http.Response) error {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10)) // what came says as much
	said := complaint(body)
	switch resp.StatusCode {
	case http.StatusNotFound:
		return fmt.Errorf("%w: %s", remote.ErrNotFound, cmp.Or(said, "the daemon has no such image"))
	case http.StatusBadRequest:
		return fmt.Errorf("%w: the daemon refuses it: %s", remote.ErrUnsupported, cmp.Or(said, "status 400"))
	}
	return fmt.Errorf("%w: the daemon says: %s", remote.ErrUnavailable, cmp.Or(said, fmt.Sprintf("status %d", resp.StatusCode)))
}

// complaint returns what a JSON document says of an error, in one harmless line, or "".
func complaint(body []byte) string {
	var says struct {
		Message string          `json:"message"`
		Detail  json.RawMessage `json:"errorDetail"`
		Error   json.RawMessage `json:"error"`
		Cause   string          `json:"cause"` // podman's
	}
	if json.NewDecoder(bytes.NewReader(body)).Decode(&says) != nil {
		return ""
	}
	var detail struct {
		Message string `json:"message"`
	}
	_ = json.Unmarshal(says.Detail, &detail) // else it has none
	return printable.Cut(printable.Line(strings.TrimSpace(cmp.Or(says.Message, detail.Message, text(says.Error), says.Cause))), maxWords)
}

// text returns a string of JSON, "" of anything else.
func text(raw json.RawMessage) string {
	var s string
	_ = json.Unmarshal(raw, &s)
	return s
}
