//go:build linux

package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/imgfs/imgfs/testdata/testenv"
	"github.com/opencontainers/go-digest"
)

// headerText is what a stranger puts into a header: there are no line ends in it.
var headerText = strings.NewReplacer("\r", "", "\n", "", "\"", "").Replace(strangeName)

// A talker is a server that answers each connection with the same bytes, which
// need not be HTTP.
type talker struct {
	host string
	mu   sync.Mutex
	says func(request string) string
}

func newTalker(t *testing.T) *talker {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	k := &talker{host: l.Addr().String()}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { k.answer(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		all.Wait()
	})
	return k
}

func (k *talker) answer(c net.Conn) {
	defer c.Close()
	buf := make([]byte, 64<<10)
	n, err := c.Read(buf)
	if err != nil {
		return
	}
	k.mu.Lock()
	says := k.says
	k.mu.Unlock()
	_, _ = io.WriteString(c, says(string(buf[:n])))
}

// answerOf writes an HTTP answer.
func answerOf(status, headers, body string) string {
	return fmt.Sprintf("HTTP/1.1 %s\r\n%sConnection: close\r\nContent-Length: %d\r\n\r\n%s", status, headers, len(body), body)
}

// TestStrangeAnswers has a registry that puts what a stranger writes into each
// place of its answers.
func TestStrangeAnswers(t *testing.T) {
	testenv.Slow(t)
	s := newSandbox(t)
	k := newTalker(t)
	image := k.host + "/app:latest"
	errorBody := `{"errors":[{"code":"` + jsonText(t, strange("code")) + `","message":"` + jsonText(t, strange("message")) + `","detail":{"` + jsonText(t, strange("key")) + `":"` + jsonText(t, strange("detail")) + `"}}]}`
	manifest := func(member, value string) string {
		return `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","` + member + `":` + value + `}`
	}
	oci := "Content-Type: application/vnd.oci.image.manifest.v1+json\r\n"
	d := "Docker-Content-Digest: "
	always := func(answer string) func(string) string { return func(string) string { return answer } }
	for name, says := range map[string]func(string) string{
		"errors":          always(answerOf("404 Not Found", "Content-Type: application/json\r\n", errorBody)),
		"forbidden":       always(answerOf("403 Forbidden", "Content-Type: application/json\r\n", errorBody)),
		"status line":     always(answerOf("418 "+headerText, "", "")),
		"text":            always(answerOf("404 Not Found", "Content-Type: text/html\r\n", "<html>"+strangeName+strings.Repeat("long ", 10000))),
		"long errors":     always(answerOf("400 Bad Request", "Content-Type: application/json\r\n", `{"errors":[{"code":"X","message":"`+strings.Repeat("long ", 100000)+`"}]}`)),
		"challenge":       always(answerOf("401 Unauthorized", "WWW-Authenticate: "+headerText+"\r\n", errorBody)),
		"basic":           always(answerOf("401 Unauthorized", "WWW-Authenticate: Basic realm=\""+headerText+"\"\r\n", errorBody)),
		"realm":           always(answerOf("401 Unauthorized", "WWW-Authenticate: Bearer realm=\"http://"+k.host+"/"+headerText+"\",service=\""+headerText+"\",scope=\""+headerText+"\"\r\n", errorBody)),
		"realm elsewhere": always(answerOf("401 Unauthorized", "WWW-Authenticate: Bearer realm=\""+headerText+"://x\"\r\n", "")),
		"token": func(r string) string {
			if strings.HasPrefix(r, "GET /token") {
				return answerOf("200 OK", "", `{"token":"`+jsonText(t, strange("token"))+`"}`)
			}
			return answerOf("401 Unauthorized", "WWW-Authenticate: Bearer realm=\"http://"+k.host+"/token\",service=\"s\"\r\n", "")
		},
		"token errors": func(r string) string {
			if strings.HasPrefix(r, "GET /token") {
				return answerOf("403 Forbidden", "", errorBody)
			}
			return answerOf("401 Unauthorized", "WWW-Authenticate: Bearer realm=\"http://"+k.host+"/token\",service=\"s\"\r\n", "")
		},
		"digest":          always(answerOf("200 OK", oci+d+"sha256:"+headerText+"\r\n", "{}")),
		"content type":    always(answerOf("200 OK", "Content-Type: application/"+headerText+"\r\n"+d+digest.FromString("{}").String()+"\r\n", "{}")),
		"length":          always("HTTP/1.1 200 OK\r\nContent-Length: " + headerText + "\r\n\r\n"),
		"encoding":        always(answerOf("200 OK", oci+"Content-Encoding: "+headerText+"\r\n", "{}")),
		"location":        always(answerOf("302 Found", "Location: http://"+k.host+"/"+headerText+"?"+headerText+"\r\n", "")),
		"location's host": always(answerOf("302 Found", "Location: http://"+headerText+"/x\r\n", "")),
		"location, coded": always(answerOf("307 Temporary Redirect", "Location: http://"+k.host+"/%1b%5d0;x%07%c2%9b%0a%e2%80%ae%ff\r\n", "")),
		"location's kind": always(answerOf("302 Found", "Location: "+headerText+"://x/\r\n", "")),
		"retry after":     always(answerOf("404 Not Found", "Retry-After: "+headerText+"\r\nWarning: 299 - \""+headerText+"\"\r\n", "")),
		"header's name":   always("HTTP/1.1 200 OK\r\n" + headerText + ": x\r\n\r\n"),
		"no HTTP":         always(strangeName + "\r\n\r\n"),
		"protocol":        always("HTTP/9" + headerText + " 200 OK\r\n\r\n"),
		"manifest":        always(answerOf("200 OK", oci, strangeName)),
		"member":          always(answerOf("200 OK", oci, manifest(jsonText(t, strange("m")), "1"))),
		"media type":      always(answerOf("200 OK", oci, `{"schemaVersion":2,"mediaType":"`+jsonText(t, strange("type"))+`"}`)),
		"config":          always(answerOf("200 OK", oci, manifest("config", `{"mediaType":"`+jsonText(t, strange("type"))+`","digest":"`+jsonText(t, strange("sha256:"))+`","size":3}`))),
	} {
		t.Run(name, func(t *testing.T) {
			s := s.in(t)
			k.mu.Lock()
			k.says = says
			k.mu.Unlock()
			r := s.run("inspect", "-v", "--tls-verify=false", image)
			checkHarmless(t, "inspect -v", r.stderr)
			checkHarmless(t, "inspect", r.stdout)
			if r.code == cli.ExitOK {
				t.Errorf("inspect succeeds: %q", r.stdout)
			}
			for line := range strings.Lines(r.stderr) {
				if len(line) > 10<<10 {
					t.Errorf("a line of %d bytes: %.100q", len(line), line)
				}
			}
			screen := screenOf(t, s.command("mount", "-v", "--retries=0", "--read-timeout=5s", "--tls-verify=false", image, s.mountpoint()))
			checkHarmless(t, "mount -v", screen)
		})
	}
}

// TestStrangeTags has tags of strangers, and the links to more of them.
func TestStrangeTags(t *testing.T) {
	s := newSandbox(t)
	image, _ := strangeImage(t, filepath.Join(s.dir, "layout"))
	reg := registrytest.New(t, nil)
	if err := reg.PushLayout(strings.TrimSuffix(strings.TrimPrefix(image, "oci:"), ":v1"), "app"); err != nil {
		t.Fatal(err)
	}
	reg.Tag("app", strange("tag"), digest.FromString("x"))
	said := s.both(t, "inspect", "-v", reg.Host()+"/app:v1")
	if !strings.Contains(said, `tag\u001b]0;`) {
		t.Errorf("the tag is not there: %.1000q", said)
	}
	var names []string
	eachString(withJSON(t, membersValue(t, s.ok("inspect", reg.Host()+"/app:v1").stdout, "RepoTags")), func(v string) { names = append(names, v) })
	if want := strange("tag"); !strings.Contains(strings.Join(names, " "), want) {
		t.Errorf("RepoTags is %q, want %q among them", names, want)
	}
	s.both(t, "index", "-v", reg.Host()+"/app:v1")
	s.both(t, "ls", "-lR", "-v", reg.Host()+"/app:v1")
}

// TestStrangeLog has reads fail of a file with a strange name, at a registry
// that says strange things of it.
func TestStrangeLog(t *testing.T) {
	needFUSE(t)
	needRoot(t)
	s := newSandbox(t)
	reg := registrytest.New(t, nil)
	name := "file" + strangeName
	image, _ := publish(t, reg, func(a *labimage.Archive) error { return a.File(name, noiseText(1<<20)) })
	dir := s.strangeDir()
	s.ok("mount", "--retries=0", image, dir)
	s.ok("cache", "prune", "--all")
	reg.Inject(registrytest.Blob, registrytest.Always(func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, `{"errors":[{"code":"X","message":"%s"}]}`, jsonText(t, strange("message")))
	}))
	if _, err := os.ReadFile(filepath.Join(dir, name)); err == nil {
		t.Error("the file can be read without a registry")
	}
	s.both(t, "stats", dir)
	s.both(t, "stats", "--json", dir)
	s.ok("umount", dir)
	s.waitGone(dir)
	log, err := os.ReadFile(filepath.Join(s.cache, "imgfs.log"))
	if err != nil {
		t.Fatal(err)
	}
	checkHarmless(t, "the log", string(log))
	for line := range strings.Lines(string(log)) {
		if _, err := time.Parse(time.RFC3339, strings.Split(line, " ")[0]); err != nil {
			t.Errorf("a line of the log without a time: %q", line)
		}
	}
	if !strings.Contains(string(log), `"/file\x1b]0;title`) || !strings.Contains(string(log), `/mnt\033]0;title`) {
		t.Errorf("the log names neither the mount nor the file: %q", log)
	}
}
