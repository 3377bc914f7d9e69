//go:build linux

package main

import (
	"archive/tar"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// packed is a tar of the files below dir, with prefix before their names there.
func packed(t *testing.T, dir, prefix string) string {
	t.Helper()
	var files []string
	for _, name := range filesBelow(t, dir) {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, prefix+name, string(content))
	}
	return tarOfFiles(t, files...)
}

// tarOfFiles is a tar of files: name and content in turn.
func tarOfFiles(t *testing.T, files ...string) string {
	t.Helper()
	var b strings.Builder
	w := tar.NewWriter(&b)
	for file := range slices.Chunk(files, 2) {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: file[0], Mode: 0o644, Size: int64(len(file[1]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, file[1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// at is a file of zeros with bytes at an offset.
func at(off int, bytes string) string {
	return strings.Repeat("\x00", off) + bytes + strings.Repeat("\x00", 4096)
}

// A file or directory of the wrong kind is called what it is, and where imgfs reads
// it as something else, or a program makes something of it that imgfs reads, the hint
// is what to type.
func TestWrongKind(t *testing.T) {
	alone(t)
	dir := t.TempDir()
	name := func(base string) string { return filepath.Join(dir, base) }
	put := func(base, content string) string { return writeFile(t, name(base), content) }
	layout := name("lay out")
	if _, err := labimage.Write(layout, small); err != nil {
		t.Fatal(err)
	}
	ociTar := packed(t, layout, "")
	put("o.tar", ociTar)
	put("o.tgz", string(gzipOf(t, []byte(ociTar))))
	layer := tarOfFiles(t, "etc/os-release", "")
	config := fmt.Sprintf(`{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[%q]}}`, digest.FromString(layer))
	put("saved/l.tar", layer)
	put("saved/c.json", config)
	put("saved/manifest.json", `[{"Config":"c.json","RepoTags":["a:b"],"Layers":["l.tar"]}]`)
	dockerTar := packed(t, name("saved"), "./")
	put("d.tar", dockerTar)
	put("d $x.tgz", string(gzipOf(t, []byte(dockerTar))))
	put("skopeo/manifest.json", `{"schemaVersion":2}`)
	put("skopeo/version", "Directory Transport Version: 1.1\n")
	put("skopeo.tar", packed(t, name("skopeo"), ""))
	put("root.tar", tarOfFiles(t, "etc/passwd", "", "./usr/bin/x", ""))
	put("tree/etc/passwd", "")
	put("tree/usr/x", "")
	put("old.tar", tarOfFiles(t, "repositories", "{}"))
	put("inner.tar", packed(t, layout, "top/"))
	put("up/inside/index.json", "{}")
	put("other.tar", tarOfFiles(t, "x", ""))
	put("nothing.tar", strings.Repeat("\x00", 1024))
	put("empty", "")
	if err := os.Mkdir(name("none"), 0o755); err != nil {
		t.Fatal(err)
	}
	for base, content := range map[string]string{
		"f.lzma": "\x5d\x00\x00junk", "f.lz4": "\x04\x22\x4d\x18junk", "f.lz": "LZIP\x01junk", "f.Z": "\x1f\x9djunk",
		"f.zip": "PK\x03\x04junk", "f.7z": "7z\xbc\xaf\x27\x1cjunk", "f.squashfs": "hsqsjunk", "f.ext4": at(0x438, "\x53\xef"), "f.iso": at(0x8001, "CD001"),
		"f.sif": at(32, "SIF_MAGIC"), "f.sif2": "#!/usr/bin/env run-singularity\n\x00SIF_MAGIC", "f.qcow2": "QFI\xfbjunk", "f.erofs": at(1024, "\xe2\xe1\xf5\xe0"), "f.json": "{}", "f.deb": "!<arch>\njunk",
		"f.mbr": at(510, "\x55\xaa"), "f.gpt": at(510, "\x55\xaaEFI PART"), "f.lfs": "version https://git-lfs.github.com/spec/v1\n", "f.html": "<!DOCTYPE html>",
		"f.gz.gz": string(gzipOf(t, gzipOf(t, []byte(dockerTar)))), "f.iso.gz": string(gzipOf(t, []byte(at(0x8001, "CD001")))),
	} {
		put(base, content)
	}
	const oci, ociArchive, docker = "oci:", "oci-archive:", "docker-archive:"
	all := []string{oci, ociArchive, docker}
	for _, tt := range []struct {
		transports []string
		base       string
		says       string
		hint       string // with the name for %s
		reads      string // the transport that reads it, if any
	}{
		{[]string{oci, docker}, "o.tar", "a tar of an OCI image layout", "write oci-archive:%s", ociArchive},
		{[]string{oci, docker}, "o.tgz", "a tar of an OCI image layout", "write oci-archive:%s", ociArchive},
		{[]string{oci, ociArchive}, "d.tar", "docker save", "write docker-archive:%s", docker},
		{[]string{oci, ociArchive}, "d $x.tgz", "docker save", "write 'docker-archive:%s'", docker},
		{[]string{ociArchive, docker}, "lay out", "a directory with an OCI image layout", "write 'oci:%s'", oci},
		{all, "up/inside/index.json", "a file of an OCI image layout", "write oci:" + name("up/inside"), ""},
		{all, "up", `OCI image layout in "inside"`, "write oci:%s/inside", ""},
		{all, "skopeo", "skopeo's transport dir:", "skopeo copy dir:%s oci:image", ""},
		{all, "skopeo.tar", "skopeo's transport dir:", "", ""},
		{all, "saved", "docker save, unpacked", "tar -C %s -cf image.tar .", ""},
		{all, "root.tar", "a tar of a root file system", "skopeo copy tarball:%s oci:image", ""},
		{all, "tree", "a directory tree that is no image", "", ""},
		{all, "old.tar", "before Docker 1.10", "docker load -i %s", ""},
		{all, "inner.tar", `in its directory "top"`, "", ""},
		{all, "other.tar", "neither manifest.json nor index.json", "", ""},
		{all, "empty", "an empty file", "", ""},
		{[]string{ociArchive, docker}, "nothing.tar", "a tar with nothing in it", "", ""},
		{[]string{oci}, "nothing.tar", "a file, not a directory", "", ""},
		{all, "none", "an empty directory", "", ""},
		{all, "f.lzma", "compressed with lzma", "xz -dc < %s > image.tar", ""},
		{all, "f.lz4", "compressed with lz4", "lz4 -dc < %s > image.tar", ""},
		{all, "f.lz", "compressed with lzip", "lzip -dc < %s > image.tar", ""},
		{all, "f.Z", "compressed with compress", "gzip -dc < %s > image.tar", ""},
		{all, "f.gz.gz", "compressed with gzip in gzip", "", ""},
		{all, "f.zip", "a zip archive", "", ""},
		{all, "f.7z", "a 7z archive", "", ""},
		{all, "f.squashfs", "a squashfs file system", "", ""},
		{all, "f.ext4", "ext4 file system", "", ""},
		{all, "f.iso", "an ISO 9660 image", "", ""},
		{all, "f.iso.gz", "an ISO 9660 image", "", ""},
		{all, "f.sif", "Singularity image file", "", ""},
		{all, "f.sif2", "Singularity image file", "", ""},
		{all, "f.qcow2", "qcow2", "", ""},
		{all, "f.erofs", "an EROFS file system", "", ""},
		{all, "f.json", "a JSON document", "", ""},
		{all, "f.deb", "an ar archive", "", ""},
		{all, "f.mbr", "a disk image", "", ""},
		{all, "f.gpt", "a disk image with partitions", "", ""},
		{all, "f.lfs", "a pointer of Git LFS", "", ""},
		{all, "f.html", "an HTML page", "", ""},
	} {
		for _, transport := range tt.transports {
			t.Run(transport+tt.base, func(t *testing.T) {
				hint := ""
				if tt.hint != "" {
					hint = strings.Replace(tt.hint, "%s", name(tt.base), 1)
				}
				r := invoke(t, "ls", transport+name(tt.base))
				checkRefusal(t, r, 1, []string{transport + name(tt.base), tt.says}, hint)
				if hint == "" && strings.Contains(r.stderr, "hint: ") {
					t.Errorf("there is a hint:\n%s", r.stderr)
				}
			})
		}
		if tt.reads != "" {
			if out := succeed(t, "ls", tt.reads+name(tt.base)); !strings.Contains(out, "etc") {
				t.Errorf("%s%s lists %q", tt.reads, tt.base, out)
			}
		}
	}
}

// A hint keeps the tag between the two transports of layouts, and drops one that is
// none for docker's archives.
func TestWrongKindTag(t *testing.T) {
	alone(t)
	layout := filepath.Join(t.TempDir(), "layout")
	if _, err := labimage.Write(layout, small); err != nil {
		t.Fatal(err)
	}
	file := writeFile(t, filepath.Join(t.TempDir(), "o.tar"), packed(t, layout, ""))
	for image, want := range map[string]string{
		"oci-archive:" + layout + ":v1":    "write oci:" + layout + ":v1\n",
		"oci:" + file + ":v1":              "write oci-archive:" + file + ":v1\n",
		"docker-archive:" + file + ":a:v1": "write oci-archive:" + file + "\n",
	} {
		checkRefusal(t, invoke(t, "ls", image), 1, nil, want)
	}
}

// A file system that was exported has more members than any archive of an image.
func TestWrongKindOfManyMembers(t *testing.T) {
	testenv.Slow(t)
	alone(t)
	files := []string{"etc/passwd", ""}
	for i := range 1 << 16 {
		files = append(files, fmt.Sprint("usr/", i), "")
	}
	content := tarOfFiles(t, files...)
	for name, content := range map[string]string{"root.tar": content, "root.tgz": string(gzipOf(t, []byte(content)))} {
		file := writeFile(t, filepath.Join(t.TempDir(), name), content)
		for _, transport := range []string{"oci:", "oci-archive:", "docker-archive:"} {
			checkRefusal(t, invoke(t, "ls", transport+file), 1, []string{"a tar of a root file system"}, "skopeo copy tarball:"+file)
		}
	}
	manifest := tarOfFiles(t, append([]string{"manifest.json", "[]"}, files...)...)
	file := writeFile(t, filepath.Join(t.TempDir(), "many.tar"), manifest)
	checkRefusal(t, invoke(t, "ls", "docker-archive:"+file), 1, []string{"more than 65536 members"}, "")
}

// What is wrong in a file is nothing to ask a registry about.
func TestDamagedFileHint(t *testing.T) {
	alone(t)
	dir := t.TempDir()
	config := fmt.Sprintf(`{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[%q]}}`, digest.FromString("another"))
	for name, layer := range map[string]string{"plain": tarOfFiles(t, "x", ""), "gzip": string(gzipOf(t, []byte(tarOfFiles(t, "x", ""))))} {
		file := writeFile(t, filepath.Join(dir, name), tarOfFiles(t, "l.tar", layer, "c.json", config, "manifest.json", `[{"Config":"c.json","Layers":["l.tar"]}]`))
		checkRefusal(t, invoke(t, "ls", "docker-archive:"+file), 1, []string{"its digest is sha256:"}, "the file is damaged, or was written wrong")
	}
	layout := filepath.Join(dir, "layout")
	if _, err := labimage.Write(layout, small); err != nil {
		t.Fatal(err)
	}
	for _, name := range filesBelow(t, layout) {
		if strings.HasPrefix(name, "blobs/") {
			content, err := os.ReadFile(filepath.Join(layout, name))
			if err != nil {
				t.Fatal(err)
			}
			writeFile(t, filepath.Join(layout, name), strings.ToUpper(string(content)))
		}
	}
	checkRefusal(t, invoke(t, "ls", "oci:"+layout), 1, []string{"digest mismatch"}, "the file is damaged, or was written wrong")
}
