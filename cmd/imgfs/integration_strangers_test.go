//go:build linux

package main

import (
	"archive/tar"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/serve"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/remote/cache/meta"
	"github.com/imgfs/imgfs/remote/sourcetest"
	"github.com/imgfs/imgfs/testdata/testenv"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
)

// strangeImage writes an OCI layout of an image in which all is a stranger's
// that may be any text, and returns its name. What the manifest and the config
// say of it is in values.
func strangeImage(t *testing.T, dir string) (image string, values []string) {
	t.Helper()
	note := func(place string) string {
		values = append(values, strange(place))
		return strange(place)
	}
	store := sourcetest.NewStore()
	layer := store.Put(ocispec.MediaTypeImageLayer, strangeLayer(t))
	config := filled[ocispec.Image](note)
	config.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{layer.Digest}}
	members := withJSON(t, config).(map[string]any)
	members["docker_version"], members["comment"], members[note("member")] = note("docker_version"), note("comment"), note("value")
	annotations := filled[map[string]string](func(place string) string { return note("annotation" + place) })
	layer.Annotations = annotations
	manifest := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: store.PutJSON(ocispec.MediaTypeImageConfig, members), Layers: []ocispec.Descriptor{layer}, Annotations: annotations}
	desc := sourcetest.Tagged(store.PutJSON(ocispec.MediaTypeImageManifest, manifest), "v1")
	maps.Copy(desc.Annotations, annotations)
	other := sourcetest.Tagged(desc, strange("tag"))
	if err := store.WriteLayout(dir, desc, other); err != nil {
		t.Fatal(err)
	}
	return "oci:" + dir + ":v1", values
}

// strangeLayer is a layer with strange names, targets, owners and attributes.
func strangeLayer(t *testing.T) []byte {
	t.Helper()
	return tarOf(t,
		tar.Header{Name: "dir" + strangeName + "/", Typeflag: tar.TypeDir, Mode: 0o755},
		tar.Header{Name: "dir" + strangeName + "/file" + strangeName, Uname: strange("user"), Gname: strange("group")},
		tar.Header{Name: "link" + strangeName, Typeflag: tar.TypeSymlink, Linkname: "target" + strangeName},
		tar.Header{Name: "loop" + strangeName, Typeflag: tar.TypeSymlink, Linkname: "loop" + strangeName},
		tar.Header{Name: "attributes", PAXRecords: map[string]string{"SCHILY.xattr.user." + strange("x"): strange("value")}},
		tar.Header{Name: "rows  12345  of  a  table"},
	)
}

// TestStrangeImage has every command say what it has to say of an image in
// which everything is a stranger's.
func TestStrangeImage(t *testing.T) {
	testenv.Slow(t)
	s := newSandbox(t)
	image, values := strangeImage(t, filepath.Join(s.dir, "layout"))
	said := ""
	for _, args := range [][]string{
		{"inspect"}, {"inspect", "--raw"}, {"inspect", "--config"}, {"index"}, {"index", "--json"}, {"index", "--fetch", "-v"},
		{"ls"}, {"ls", "-l"}, {"ls", "-alR", "-v"}, {"ls", "-m"}, {"ls", "-1N"}, {"ls", "-lRQ"}, {"ls", "-b"}, {"ls", "--quoting-style=shell"}, {"ls", "-lRL"},
	} {
		said += s.both(t, append(slices.Clone(args), image)...)
	}
	colored := s.in(t) // by sequences that do nothing to a terminal
	colored.env = append(slices.Clone(s.env), "LS_COLORS=lc=<:rc=>:cl=|:di=1:ln=target:or=2:mi=3:*"+"\u202c=4")
	for _, flags := range []string{"-C", "-lR", "-lRN", "-RF", "-lRL"} {
		said += colored.both(t, "ls", "--color=always", flags, image)
	}
	for _, path := range []string{"no" + strangeName, "loop" + strangeName, "dir" + strangeName, "link" + strangeName, "dir" + strangeName + "/file" + strangeName + "/x"} {
		said += s.both(t, "cat", image, path) + s.both(t, "ls", image, path)
	}
	said += s.both(t, "ls", strings.TrimSuffix(image, ":v1")) // which of them?
	said += s.both(t, "ls", image+strangeText)
	said += s.both(t, "ls", "--platform", "plan9/arm", image)
	for _, args := range [][]string{{"cache", "ls"}, {"cache", "ls", "--json"}, {"cache", "verify"}, {"cache", "verify", "--json"}, {"cache", "prune", "--all"}} {
		said += s.both(t, args...)
	}
	for _, place := range []string{"Architecture", "ConfigLabelsKey0", "ConfigLabelsValue1", "ConfigEnv1", "annotationValue0", "docker_version", "History0Comment", "Author", "member", "tag", "dir", "link", "target", "file", "loop", "no"} {
		if !strings.Contains(said, place+`\u001b`) && !strings.Contains(said, place+`\033`) && !strings.Contains(said, place+`'$'\033`) && !strings.Contains(said, place+`\x1b`) {
			t.Errorf("nothing was said of %s: this test is about less than it should be", place)
		}
	}
	if !strings.Contains(said, "'rows  12345  of  a  table'") {
		t.Error("a name that looks like columns was not quoted")
	}
	checkConfig(t, s, image, values)
}

// checkConfig checks that documents are what they were, to whoever reads JSON.
func checkConfig(t *testing.T, s *sandbox, image string, values []string) {
	t.Helper()
	for _, flag := range []string{"--raw", "--config"} {
		screen := screenOf(t, s.command("inspect", flag, image))
		exact := s.ok("inspect", flag, image).stdout
		var got, want any
		if err := json.Unmarshal([]byte(screen), &got); err != nil {
			t.Fatalf("inspect %s on a terminal: %v", flag, err)
		}
		if err := json.Unmarshal([]byte(exact), &want); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("inspect %s: on a terminal it is\n%+q\nwant\n%+q", flag, got, want)
		}
		if flag == "--raw" && digest.FromString(exact).String() != membersValue(t, s.ok("inspect", image).stdout, "Digest") {
			t.Error("inspect --raw into a pipe is not the manifest byte for byte")
		}
	}
	text := withJSON(t, json.RawMessage(s.ok("inspect", image).stdout))
	var found []string
	eachString(text, func(v string) { found = append(found, v) })
	for _, place := range []string{"PlatformArchitecture", "PlatformOS", "ConfigEnv0", "ConfigLabelsKey0", "ConfigLabelsValue0", "annotationKey0", "annotationValue1"} {
		if want := strange(place); !slices.Contains(values, want) || !slices.Contains(found, want) {
			t.Errorf("inspect has no %q", want)
		}
	}
}

func membersValue(t *testing.T, text, name string) any {
	t.Helper()
	_, values := members(t, text)
	return values[name]
}

// eachString calls do for each string of a JSON document, keys included.
func eachString(v any, do func(string)) {
	switch v := v.(type) {
	case string:
		do(v)
	case []any:
		for _, x := range v {
			eachString(x, do)
		}
	case map[string]any:
		for k, x := range v {
			do(k)
			eachString(x, do)
		}
	}
}

// TestStrangePlatforms has an image index for platforms that are none.
func TestStrangePlatforms(t *testing.T) {
	s := newSandbox(t)
	store := sourcetest.NewStore()
	var all []ocispec.Descriptor
	for i := range 3 {
		desc := store.AddImage(sourcetest.Image{Layers: []sourcetest.Layer{{Content: tarOf(t, tar.Header{Name: fmt.Sprint(i)})}}})
		p := filled[ocispec.Platform](func(place string) string { return strange(fmt.Sprint(place, i)) })
		desc.Platform = &p
		all = append(all, desc)
	}
	if err := store.WriteLayout(s.dir+"/layout", sourcetest.Tagged(store.AddIndex(all...), "v1")); err != nil {
		t.Fatal(err)
	}
	said := s.both(t, "ls", "oci:"+s.dir+"/layout:v1") + s.both(t, "inspect", "--raw", "oci:"+s.dir+"/layout:v1")
	if !strings.Contains(said, `there is "`) && !strings.Contains(said, "no image for") {
		t.Errorf("no platform is named: %q", said)
	}
}

// TestStrangeManifests has manifests that are refused, with the words of
// strangers for everything that the refusal may name.
func TestStrangeManifests(t *testing.T) {
	testenv.Slow(t)
	s := newSandbox(t)
	valid := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromString("x"), Size: 1}
	manifest := func(edit func(m *ocispec.Manifest)) any {
		m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: valid,
			Layers: []ocispec.Descriptor{{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromString("y"), Size: 1}}}
		edit(&m)
		return m
	}
	for name, doc := range map[string]any{
		"media type":  manifest(func(m *ocispec.Manifest) { m.MediaType = strange("T") }),
		"config type": manifest(func(m *ocispec.Manifest) { m.Config.MediaType = strange("T") }),
		"artifact": manifest(func(m *ocispec.Manifest) {
			m.ArtifactType = strange("T")
			m.Config.MediaType = "application/" + strange("T")
		}),
		"config digest":    manifest(func(m *ocispec.Manifest) { m.Config.Digest = digest.Digest(strange("sha256:")) }),
		"layer type":       manifest(func(m *ocispec.Manifest) { m.Layers[0].MediaType = strange("T") }),
		"layer digest":     manifest(func(m *ocispec.Manifest) { m.Layers[0].Digest = digest.Digest(strange("sha256:")) }),
		"layer algorithm":  manifest(func(m *ocispec.Manifest) { m.Layers[0].Digest = digest.Digest(strange("T") + ":00") }),
		"text":             strange("T"),
		"member":           map[string]any{strange("T"): 1, "schemaVersion": strange("T")},
		"number as a text": map[string]any{"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageManifest, "config": map[string]any{"size": strange("T")}},
	} {
		store := sourcetest.NewStore()
		dir := filepath.Join(s.dir, "layout "+name)
		if err := store.WriteLayout(dir, sourcetest.Tagged(store.PutJSON(ocispec.MediaTypeImageManifest, doc), "v1")); err != nil {
			t.Fatal(err)
		}
		s.both(t, "ls", "-v", "oci:"+dir+":v1")
		s.both(t, "inspect", "oci:"+dir+":v1")
	}
	for name, config := range map[string]any{
		"rootfs":  map[string]any{"rootfs": map[string]any{"type": strange("T"), "diff_ids": []string{}}},
		"diffID":  map[string]any{"rootfs": map[string]any{"type": "layers", "diff_ids": []string{strange("sha256:")}}},
		"created": map[string]any{"created": strange("T")},
		"env":     map[string]any{"config": map[string]any{"Env": strange("T")}},
	} {
		store := sourcetest.NewStore()
		m := manifest(func(m *ocispec.Manifest) { m.Config = store.PutJSON(ocispec.MediaTypeImageConfig, config) })
		dir := filepath.Join(s.dir, "config "+name)
		if err := store.WriteLayout(dir, sourcetest.Tagged(store.PutJSON(ocispec.MediaTypeImageManifest, m), "v1")); err != nil {
			t.Fatal(err)
		}
		s.both(t, "ls", "oci:"+dir+":v1")
	}
}

// TestStrangeArguments gives every command and every flag, as imgfs itself
// lists them, what a stranger wrote: somebody pastes it, or a script passes it on.
func TestStrangeArguments(t *testing.T) {
	testenv.Slow(t)
	t.Parallel()
	s := newSandbox(t)
	word := "x" + strangeName
	s.both(t, word)
	s.both(t, "help", word)
	s.both(t, "--"+word)
	s.both(t, "-"+word)
	try := func(words []string, c cli.Command) {
		if c.Commands != nil {
			s.both(t, append(slices.Clone(words), word)...)
			return
		}
		s.both(t, append([]string{"help"}, append(slices.Clone(words), word)...)...)
		s.both(t, append(slices.Clone(words), word)...)
		s.both(t, append(slices.Clone(words), "oci:"+s.dir+"/"+word, word)...)
		own := pflag.NewFlagSet("", pflag.ContinueOnError)
		c.Setup(own)
		s.both(t, append(slices.Clone(words), "--"+word)...)
		own.VisitAll(func(f *pflag.Flag) {
			if f.Name != detachedFlag {
				checkHarmless(t, strings.Join(words, " ")+" --"+f.Name, s.run(append(slices.Clone(words), "--"+f.Name+"="+word, "127.0.0.1:1/a", "127.0.0.1:1/b")...).stderr)
			}
		})
	}
	for name, c := range allCommands() {
		try(strings.Fields(name), c)
	}
	global := pflag.NewFlagSet("", pflag.ContinueOnError)
	for _, declare := range newEnv(nil, nil).globalFlags() {
		declare(global)
	}
	global.VisitAll(func(f *pflag.Flag) {
		s.both(t, "ls", "--"+f.Name+"="+filepath.Join(s.dir, word), "oci:/none:v1")
	})
	for _, name := range []string{"IMGFS_CACHE_DIR", "IMGFS_CACHE_SIZE", "REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "CONTAINERS_REGISTRIES_CONF"} {
		with := *s
		with.env = append(slices.Clone(s.env), name+"="+filepath.Join(s.dir, word))
		with.both(t, "ls", "-v", "127.0.0.1:1/none")
	}
}

// TestStrangeFiles has files of a user's configuration that quote strangers, or
// are damaged.
func TestStrangeFiles(t *testing.T) {
	s := newSandbox(t)
	s.env = append(s.env, "CONTAINERS_REGISTRIES_CONF="+s.dir+"/registries.conf", "REGISTRY_AUTH_FILE="+s.dir+"/auth.json", "HOME="+s.dir)
	helper := writeFile(t, s.dir+"/bin/docker-credential-strange", "#!/bin/sh\nprintf 'bad\\033[31m\\n\\302\\233' >&2\nprintf 'no\\033[31m\\n'\nexit 1\n")
	if err := os.Chmod(helper, 0o755); err != nil {
		t.Fatal(err)
	}
	s.env = append(s.env, "PATH="+s.dir+"/bin:"+os.Getenv("PATH"))
	for name, texts := range map[string][]string{
		"registries.conf": {"[[registry]]\nlocation=\"" + strings.ReplaceAll(strangeName, "\n", "") + "\"", strangeName, "unqualified-search-registries=[\"a" + "\\u202e" + "\",\"b\\u009b\"]", "\"" + "x\\u001b" + "\" = 1\n[[registry]]\nlocation=5"},
		"auth.json":       {strangeName, `{"auths":{"127.0.0.1:1":{"auth":"\u001b\u009b"}}}`, `{"credHelpers":{"127.0.0.1:1":"strange"}}`, `{"credHelpers":{"127.0.0.1:1":"\u001b[31m"}}`, `{"credsStore":"x\u202e"}`},
	} {
		for _, text := range texts {
			writeFile(t, s.dir+"/"+name, text)
			s.both(t, "ls", "-v", "127.0.0.1:1/none")
			s.both(t, "ls", "-v", "short")
		}
		if err := os.Remove(s.dir + "/" + name); err != nil {
			t.Fatal(err)
		}
	}
}

// TestStrangeRecords has a cache that somebody else has written into.
func TestStrangeRecords(t *testing.T) {
	s := newSandbox(t)
	image, _ := strangeImage(t, filepath.Join(s.dir, "layout"))
	s.ok("index", image)
	record := filled[meta.Image](strange)
	record.Manifest, record.Layers = digest.FromString("m"), nil
	text, err := json.Marshal(record)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(s.cache, "images", strings.Repeat("0a", 32)+".json"), string(text))
	writeFile(t, filepath.Join(s.cache, "images", "y"+strangeName+".json"), string(text))
	writeFile(t, filepath.Join(s.cache, "images", "z"+strangeName+".json"), "damaged")
	for _, place := range []string{"meta/sha256/", "refs/", "verified/sha256/", "blobs/sha256/", "indexes/sha256/", "contents/sha256/", "tmp/", ""} {
		writeFile(t, filepath.Join(s.cache, place+"f"+strangeName), strangeText)
	}
	said := s.both(t, "cache", "ls") + s.both(t, "cache", "ls", "--json")
	for _, escaped := range []string{`Name\033]0`, `Name\u001b]0`, `Platform\u001b]0`} {
		if !strings.Contains(said, escaped) {
			t.Errorf("cache ls does not have %s", escaped)
		}
	}
	said = s.run("cache", "verify", "--json").stdout
	checkHarmless(t, "cache verify --json", said)
	if !strings.Contains(said, `"pathBytes"`) || !strings.Contains(said, `images/z`) {
		t.Errorf("cache verify --json names a file that is no UTF-8, without its bytes: %q", said)
	}
	s.both(t, "cache", "verify")
	s.both(t, "cache", "prune", "--to=0")
	s.both(t, "cache", "prune", "--all", "--json")
}

// TestStrangeMounts mounts a strange image on a strange directory, and where
// something of a strange name is mounted.
func TestStrangeMounts(t *testing.T) {
	needFUSE(t)
	needRoot(t)
	s := newSandbox(t)
	image, _ := strangeImage(t, filepath.Join(s.dir, "lay"+strings.ReplaceAll(strangeName, ":", "")))
	dir := s.strangeDir()
	if r := s.run("stats", dir); forbidden(r.stderr) != "" || r.code != cli.ExitFailure {
		t.Errorf("stats of what is no mount: %q", r.stderr)
	}
	out := s.ok("mount", image, dir)
	checkHarmless(t, "mount", out.stdout+out.stderr)
	if lines([]byte(out.stdout)) != 1 || !strings.HasPrefix(out.stdout, "mounted $'oci:") {
		t.Errorf("mount says %q", out.stdout)
	}
	for _, args := range [][]string{{"stats", dir}, {"stats", "--json", dir}, {"cache", "ls"}, {"cache", "ls", "--json"}, {"mount", image, dir}, {"umount", dir + "/x"}} {
		s.both(t, args...)
	}
	var stats serve.Stats
	if err := show.Unmarshal([]byte(s.ok("stats", "--json", dir).stdout), &stats); err != nil || stats.Dir != dir || stats.Image != image {
		t.Errorf("error %v, dir %q and image %q, want %q and %q", err, stats.Dir, stats.Image, dir, image)
	}
	var list cacheList
	if err := show.Unmarshal([]byte(s.ok("cache", "ls", "--json").stdout), &list); err != nil || len(list.Images) != 1 || !slices.Equal(list.Images[0].Mounts, []string{dir}) {
		t.Errorf("error %v, and the cache's list is %+q", err, withJSON(t, list))
	}
	value := make([]byte, serve.MaxStats)
	if n, err := unix.Getxattr(dir, serve.StatsAttr, value); err != nil || forbidden(string(value[:n])) != "" {
		t.Errorf("error %v, and the attribute has %s", err, forbidden(string(value[:max(n, 0)])))
	}
	s.ok("umount", dir)
	s.waitGone(dir)
	if err := unix.Mount("evil"+strange("source"), dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	if said := s.both(t, "mount", image, dir); !strings.Contains(said, `$'evil`) {
		t.Errorf("what is mounted there already is not named: %q", said)
	}
	if err := unix.Unmount(dir, 0); err != nil {
		t.Fatal(err)
	}
	checkMountInForeground(t, s, image, dir)
}

// checkMountInForeground has the line that a mount writes by itself, and its log.
func checkMountInForeground(t *testing.T, s *sandbox, image, dir string) {
	t.Helper()
	cmd := s.command("mount", "-f", "-v", image, dir)
	done := make(chan string)
	go func() { done <- screenOf(t, cmd) }()
	isFUSE := func() bool {
		var st unix.Statfs_t
		return unix.Statfs(dir, &st) == nil && st.Type == unix.FUSE_SUPER_MAGIC
	}
	if !eventually(20*time.Second, isFUSE) {
		t.Error("nothing is mounted")
	}
	s.ok("umount", dir)
	screen := <-done
	checkHarmless(t, "mount -f", screen)
	if !strings.Contains(screen, "mounted $'oci:") {
		t.Errorf("mount -f says %q", screen)
	}
}
