package hosts

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imgfs/imgfs/remote"
)

// A podmanAnswer is what testdata/podmanconf says of a configuration.
type podmanAnswer struct {
	Error        string
	Names, Short []podmanPlaces
}

type podmanPlaces struct {
	Error   string
	Blocked bool
	Refused int
	Places  []string
}

// The disagreements with podman that docs/registries.md lists.
const (
	podmanNonsense = "nonsense" // files
	podmanVersion1 = "version 1"
	podmanLocation = "location" // names
	podmanCapitals = "capitals"
	podmanTag      = "tag"
	podmanSecond   = "second"
	podmanSuffix   = "suffix"
	podmanHub      = "hub"
	podmanIPv6     = "IPv6"
	podmanHubShort = "short" // names without a registry
	podmanSearch   = "search"
)

var podmanKinds = []string{podmanNonsense, podmanVersion1, podmanLocation, podmanCapitals, podmanTag, podmanSecond, podmanSuffix, podmanHub, podmanIPv6, podmanHubShort, podmanSearch}

// TestAgreesWithPodman makes configurations for as long as IMGFS_PODMAN says
// and asks podman's own library, in a program of its own, what it makes of
// them: which are refused, what is blocked, which places are asked and in
// which order, and what short names mean.
func TestAgreesWithPodman(t *testing.T) {
	length, _ := time.ParseDuration(os.Getenv("IMGFS_PODMAN"))
	if length == 0 {
		t.Skip("IMGFS_PODMAN=1m is not set")
	}
	podman := startPodman(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	g := &confMaker{rand.New(rand.NewPCG(seed, 0))}
	count := map[string]int{}
	for end := time.Now().Add(length); time.Now().Before(end) && !t.Failed(); {
		q := g.question()
		a := podman(q)
		comparePodman(t, q, a, count)
	}
	t.Logf("%v", count)
	for _, kind := range []string{"blocked", "elsewhere", "refused file", "as it says", "short"} {
		if count[kind] == 0 {
			t.Errorf("no question was answered with %q", kind)
		}
	}
}

// startPodman builds and starts testdata/podmanconf.
func startPodman(t *testing.T) func(*podmanQuestion) *podmanAnswer {
	program := filepath.Join(t.TempDir(), "podmanconf")
	build := exec.Command("go", "build", "-o", program, ".")
	build.Dir = filepath.Join("..", "..", "..", "testdata", "podmanconf")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir())
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	ask, answers := json.NewEncoder(in), json.NewDecoder(bufio.NewReader(out))
	return func(q *podmanQuestion) *podmanAnswer {
		var a podmanAnswer
		err := ask.Encode(q)
		if err == nil {
			err = answers.Decode(&a)
		}
		if err != nil {
			t.Fatal(err)
		}
		return &a
	}
}

func comparePodman(t *testing.T, q *podmanQuestion, a *podmanAnswer, count map[string]int) {
	dir := t.TempDir()
	defer os.RemoveAll(dir)
	files := &ConfigFiles{HostDirs: []string{}, DaemonJSON: []string{}}
	for i, text := range q.Files {
		files.Registries = append(files.Registries, writeFile(t, filepath.Join(dir, fmt.Sprintf("%d.conf", i)), text, 0o600))
	}
	conf, err := files.Load()
	text := strings.Join(q.Files, "\n--\n")
	switch {
	case err != nil && a.Error != "":
		count["refused file"]++
		return
	case err != nil && q.nonsense(), err == nil && a.Error != "" && strings.Contains(a.Error, "in v1"):
		count["allowed: "+map[bool]string{true: podmanNonsense, false: podmanVersion1}[err != nil]]++
		return
	case err == nil && strings.Contains(a.Error, "Invalid unqualified-search-registries entry \"[::1]:5000\""):
		count["allowed: "+podmanIPv6]++
		return
	case err != nil || a.Error != "":
		t.Errorf("file: error %v, podman %q\n%s", err, a.Error, text)
		return
	}
	for i, name := range q.Names {
		if kind, diff := q.compareName(conf, name, &a.Names[i]); diff != "" {
			t.Errorf("%s: %s\n%s", name, diff, text)
		} else {
			count[kind]++
		}
	}
	for i, name := range q.Short {
		if kind, diff := q.compareShort(conf, name, &a.Short[i]); diff != "" {
			t.Errorf("%s: %s\n%s", name, diff, text)
		} else {
			count[kind]++
		}
	}
}

// compareName says how the places of an image differ from podman's, or which
// kind of answer both have.
func (q *podmanQuestion) compareName(conf *Configuration, name string, theirs *podmanPlaces) (kind, diff string) {
	ours, err := placesOf(conf, name)
	refused := theirs.Error != "" || len(theirs.Places) == 0
	say := fmt.Sprintf("%v, %v; podman %+v", ours, err, *theirs)
	switch {
	case errors.Is(err, ErrBlocked) && refused:
		return "blocked", ""
	case err != nil && refused:
		return "refused", ""
	case strings.HasPrefix(name, hubHost+"/") && !theirs.Blocked: // podman goes where the other host leads
		return "allowed: " + podmanHub, ""
	case errors.Is(err, ErrBlocked):
		if kind := q.blockedFor(name, theirs); kind != "" {
			return "allowed: " + kind, ""
		}
		return "", say
	case strings.Contains(theirs.Error, "invalid reference format") && err == nil && strings.Contains(name+strings.Join(ours, " "), "[::1]"):
		return "allowed: " + podmanIPv6, ""
	case err != nil || refused:
		return "", say
	}
	for i, place := range theirs.Places {
		theirs.Places[i] = foldHub(place)
	}
	if q.leavesOut(ours, theirs.Places) {
		return "allowed: a place is blocked here", ""
	}
	if !slices.Equal(ours, theirs.Places) {
		return "", say
	}
	if len(ours) == 1 && ours[0] == name {
		return "as it says", ""
	}
	return "elsewhere", ""
}

// leavesOut reports whether some of podman's places, and nothing else, are left
// out here because they are blocked in a way that podman does not see.
func (q *podmanQuestion) leavesOut(ours, theirs []string) bool {
	if len(ours) >= len(theirs) {
		return false
	}
	i := 0
	for _, place := range theirs {
		if i < len(ours) && ours[i] == place {
			i++
		} else if q.blockedFor(place, &podmanPlaces{}) == "" {
			return false
		}
	}
	return i == len(ours)
}

// blockedFor says why a name may be blocked here that is not for podman.
func (q *podmanQuestion) blockedFor(name string, theirs *podmanPlaces) string {
	host, _, _ := strings.Cut(name, "/")
	text := strings.Join(q.Files, "\n")
	switch {
	case theirs.Blocked || theirs.Refused > 0:
		return podmanLocation
	case host != strings.ToLower(host) || text != strings.ToLower(text):
		return podmanCapitals
	case strings.Contains(text, `:v1"`) || strings.Contains(text, "@sha256:"):
		return podmanTag
	case q.repeated():
		return podmanSecond
	case strings.Count(host, ".example") > 1:
		return podmanSuffix
	}
	return ""
}

func placesOf(conf *Configuration, name string) ([]string, error) {
	full, err := conf.ShortName(name)
	if err != nil {
		return nil, err
	}
	ref, err := remote.ParseReference(full)
	if err != nil {
		return nil, err
	}
	sites, err := conf.Sites(context.Background(), ref)
	if err != nil {
		return nil, err
	}
	var places []string
	for _, s := range sites {
		text := s.Ref.String()
		if s.Insecure {
			text += " insecure"
		}
		places = append(places, text)
	}
	return places, nil
}

func foldHub(place string) string {
	if rest, ok := strings.CutPrefix(place, hubHost+"/"); ok {
		return "docker.io/" + rest
	}
	return place
}

// compareShort is compareName for what a short name means.
func (q *podmanQuestion) compareShort(conf *Configuration, name string, theirs *podmanPlaces) (kind, diff string) {
	got, err := conf.ShortName(name)
	if err == nil {
		var ref remote.Reference
		if ref, err = remote.ParseReference(got); err == nil {
			got = ref.String()
		}
	}
	switch {
	case len(theirs.Places) > 1 && err != nil && !errors.Is(err, ErrBlocked):
		return "allowed: " + podmanSearch, ""
	case theirs.Error != "" && err != nil:
		return "short refused", ""
	case strings.Contains(theirs.Error, "did not resolve to an alias") && strings.HasPrefix(got, "docker.io/"):
		return "allowed: " + podmanHubShort, ""
	case strings.Contains(theirs.Error, "must be lowercase"), theirs.Error != "" && strings.ToLower(name) != name:
		return "allowed: " + podmanCapitals, ""
	case len(theirs.Places) == 1 && err == nil && foldHub(theirs.Places[0]) == got:
		return "short", ""
	case len(theirs.Places) == 1 && (err == nil || errors.Is(err, ErrBlocked)) && strings.HasPrefix(theirs.Places[0], hubHost+"/"):
		return "allowed: " + podmanHub, ""
	}
	return "", fmt.Sprintf("short name: %q, %v; podman %+v", got, err, *theirs)
}

// TestPodmanDisagreementsListed: docs/registries.md has a row for each kind.
func TestPodmanDisagreementsListed(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "registries.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(doc), "### Where podman decides otherwise")
	section, _, _ = strings.Cut(section, "\n## ")
	var listed []string
	for line := range strings.Lines(section) {
		if kind, _, ok := strings.Cut(strings.TrimPrefix(line, "| "), " |"); ok && strings.HasPrefix(line, "| ") && kind != "kind" {
			listed = append(listed, kind)
		}
	}
	slices.Sort(listed)
	if want := slices.Sorted(slices.Values(podmanKinds)); !slices.Equal(listed, want) {
		t.Errorf("docs/registries.md lists %q, want %q", listed, want)
	}
}
