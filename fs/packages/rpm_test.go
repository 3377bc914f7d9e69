package packages

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/fs/internal/layertest"
	"github.com/imgfs/imgfs/testdata/testenv"
	"github.com/ncruces/go-sqlite3"
)

// rpms are the packages that the tests install: name, epoch, version, release,
// architecture.
var rpms = [][5]string{
	{"plain", "", "1.0", "1", "noarch"}, {"epoch", "3", "2.0~rc1", "2.fc40", "x86_64"}, {"kernel", "", "6.1", "1", "x86_64"},
	{"kernel", "", "6.2", "1", "x86_64"}, {"zero", "0", "1^git", "1", "noarch"},
}

// rpm runs rpm or rpmbuild.
func rpm(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// TestRPM has rpm install packages, and compares what it lists with what is read of its
// database.
func TestRPM(t *testing.T) {
	testenv.Slow(t)
	for _, name := range []string{"rpm", "rpmbuild"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("no %s here", name)
		}
	}
	dir := t.TempDir()
	for i, p := range rpms {
		epoch := ""
		if p[1] != "" {
			epoch = "Epoch: " + p[1] + "\n"
		}
		spec := fmt.Sprintf("Name: %s\n%sVersion: %s\nRelease: %s\nSummary: x\nLicense: MIT\n%%description\nx\n%%files\n", p[0], epoch, p[2], p[3])
		file := filepath.Join(dir, fmt.Sprintf("%d.spec", i))
		if err := os.WriteFile(file, []byte(spec), 0o644); err != nil {
			t.Fatal(err)
		}
		rpm(t, "rpmbuild", "-bb", "--quiet", "--target", p[4], "--define", "_topdir "+dir, "--define", "_rpmdir "+dir+"/out", file)
	}
	built, _ := filepath.Glob(dir + "/out/*/*.rpm")
	if len(built) != len(rpms) {
		t.Fatalf("rpmbuild made %q", built)
	}
	for backend, name := range map[string]string{"sqlite": "rpmdb.sqlite", "ndb": "Packages.db"} {
		t.Run(backend, func(t *testing.T) {
			if out, _ := exec.Command("rpm", "--define", "_db_backend "+backend, "--dbpath", t.TempDir(), "--initdb").CombinedOutput(); strings.Contains(string(out), "invalid %_db_backend") {
				t.Skipf("rpm has no %s here", backend)
			}
			db := filepath.Join(t.TempDir(), "db")
			common := []string{"--define", "_db_backend " + backend, "--dbpath", db}
			rpm(t, "rpm", append(common, append([]string{"-i", "--justdb", "--nodeps", "--noscripts", "--ignorearch", "--ignoreos", "--force"}, built...)...)...)
			want := rpm(t, "rpm", append(common, "-qa", "--qf", `%{NAME}=%{EVR}/%{ARCH}\n`)...)
			var members []layertest.Member
			files, _ := os.ReadDir(db)
			for _, f := range files {
				content, err := os.ReadFile(filepath.Join(db, f.Name()))
				if err != nil {
					t.Fatal(err)
				}
				members = append(members, layertest.File("usr/lib/sysimage/rpm/"+f.Name(), string(content)))
			}
			all := read(t, append(members, layertest.Symlink("var/lib/rpm", "../../usr/lib/sysimage/rpm"))...)
			if len(all) != 1 || all[0].Err != nil || len(all[0].Packages) != len(rpms) {
				t.Fatalf("got %s of %s, which has %q", text(all), name, files)
			}
			for _, p := range all[0].Packages {
				line := fmt.Sprintf("%s=%s/%s\n", p.Name, p.Version, p.Arch)
				if !strings.Contains(want, line) {
					t.Errorf("rpm does not list %sbut\n%s", line, want)
				}
			}
			damage(t, name, members)
		})
	}
}

// damage reads databases of which bytes are wrong or missing. Each must be an error or
// packages, and nothing else.
func damage(t *testing.T, name string, members []layertest.Member) {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, 2))
	failed := 0
	for round := range 150 {
		changed := append([]layertest.Member{}, members...)
		for i, m := range changed {
			if !strings.HasSuffix(m.Name, name) || len(m.Data) == 0 {
				continue
			}
			data := []byte(m.Data)
			for range 1 + round%60 {
				data[rng.IntN(len(data))] = byte(rng.IntN(256))
			}
			if round%5 == 0 {
				data = data[:rng.IntN(len(data))]
			}
			changed[i] = layertest.File(m.Name, string(data))
		}
		for _, db := range read(t, changed...) {
			if db.Err != nil {
				failed++
			}
		}
	}
	if failed < 20 {
		t.Errorf("%d of 150 damaged databases were refused", failed)
	}
}

// sqliteOf makes a database in WAL mode and returns its files before it is closed: what
// a layer has that was committed while rpm ran.
func sqliteOf(t *testing.T, checkpoint bool, statements ...string) (main, wal string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "db")
	conn, err := sqlite3.Open("file:" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.Exec("PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0;"); err != nil {
		t.Skipf("no write-ahead log here: %v", err)
	}
	for i, s := range statements {
		if err := conn.Exec(s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
		if i == 0 && checkpoint {
			if err := conn.Exec("PRAGMA wal_checkpoint(TRUNCATE)"); err != nil {
				t.Fatal(err)
			}
		}
	}
	a, errA := os.ReadFile(path)
	b, errB := os.ReadFile(path + "-wal")
	if errA != nil || errB != nil {
		t.Fatal(errA, errB)
	}
	return string(a), string(b)
}

func insert(name, version string) string {
	return fmt.Sprintf("INSERT INTO Packages(blob) VALUES (x'%x');", header(map[uint32]any{tagName: name, tagVersion: version, tagRelease: "1"}))
}

// TestWAL: what was committed to the log counts, and nothing else of it.
func TestWAL(t *testing.T) {
	const create = "CREATE TABLE Packages (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL);"
	const path = "var/lib/rpm/rpmdb.sqlite"
	for _, checkpoint := range []bool{false, true} {
		main, wal := sqliteOf(t, checkpoint, create+insert("a", "1"), insert("b", "2"), insert("c", strings.Repeat("3", 9000)), "DELETE FROM Packages WHERE hnum = 1;")
		names := func(wal string) string {
			var all []string
			for _, db := range read(t, layertest.File(path, main), layertest.File(path+"-wal", wal)) {
				if db.Err != nil {
					return db.Err.Error()
				}
				for _, p := range db.Packages {
					all = append(all, p.Name)
				}
			}
			return strings.Join(all, " ")
		}
		before := "a"
		if !checkpoint {
			before = names("") // not even a table
		}
		if got := names(wal); got != "b c" {
			t.Errorf("with its log: got %q, want b and c", got)
		}
		for what, wal := range map[string]string{"empty": "", "cut in its head": wal[:20], "of nothing": strings.Repeat("\x00", 9000), "with a wrong sum": wal[:24] + "xxxxxxxx" + wal[32:]} {
			if got := names(wal); got != before {
				t.Errorf("with a log %s: got %q, want %q", what, got, before)
			}
		}
		if got := names(wal[:len(wal)-1]); got != "a b c" {
			t.Errorf("with a log that lacks the end of the last transaction: got %q", got)
		}
		if got := names(wal + "what is left of an older log" + wal); got != "b c" {
			t.Errorf("with more behind the log: got %q", got)
		}
	}
}

// TestHostileSQLite: a schema is a stranger's.
func TestHostileSQLite(t *testing.T) {
	for what, statements := range map[string]string{
		"no table":        "CREATE TABLE Other (blob BLOB);",
		"a view":          "CREATE VIEW Packages AS WITH RECURSIVE n(blob) AS (SELECT 1 UNION ALL SELECT blob+1 FROM n) SELECT blob FROM n;",
		"no column":       "CREATE TABLE Packages (x);INSERT INTO Packages VALUES (1);",
		"a number":        "CREATE TABLE Packages (blob);INSERT INTO Packages VALUES (1);",
		"no header":       "CREATE TABLE Packages (blob);INSERT INTO Packages VALUES (zeroblob(1000000));",
		"much to compute": "CREATE TABLE Packages (x, blob AS (instr(zeroblob(0000008), zeroblob(0000004) || x'01')));INSERT INTO Packages VALUES (1);",
		"much to create":  "CREATE TABLE Packages (x, blob AS (zeroblob(1000000000)));INSERT INTO Packages VALUES (1);",
	} {
		main, wal := sqliteOf(t, true, statements)
		main = strings.NewReplacer("(0000008)", "(8000000)", "(0000004)", "(4000000)").Replace(main) // SQLite computes it once itself
		all := read(t, layertest.File("var/lib/rpm/rpmdb.sqlite", main), layertest.File("var/lib/rpm/rpmdb.sqlite-wal", wal))
		if len(all) != 1 || all[0].Err == nil || all[0].Packages != nil {
			t.Errorf("%s: got %v", what, text(all))
		}
	}
}

// ndbOf writes a database of headers as rpm's rpmpkg.c does.
func ndbOf(headers ...[]byte) []byte {
	le := binary.LittleEndian
	slots := append([]byte("RpmP"), make([]byte, 28)...)
	le.PutUint32(slots[12:], 1)
	var blobs []byte
	for i, h := range headers {
		blob := append([]byte("BlbS"), make([]byte, 12)...)
		le.PutUint32(blob[4:], uint32(i+1))
		le.PutUint32(blob[12:], uint32(len(h)))
		blob = append(blob, h...)
		blob = append(blob, "sum-size"+"BlbE"...)
		for len(blob)%ndbBlock != 0 {
			blob = append(blob, 0)
		}
		slot := append([]byte("Slot"), make([]byte, 12)...)
		le.PutUint32(slot[4:], uint32(i+1))
		le.PutUint32(slot[8:], uint32(ndbPage+len(blobs))/ndbBlock)
		le.PutUint32(slot[12:], uint32(len(blob)/ndbBlock))
		slots, blobs = append(slots, slot...), append(blobs, blob...)
	}
	for len(slots) < ndbPage {
		slots = append(slots, "Slot\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"...)
	}
	return append(slots, blobs...)
}

func TestNDB(t *testing.T) {
	var headers [][]byte
	for _, name := range []string{"b", "a", strings.Repeat("long", 5000)} {
		headers = append(headers, header(map[uint32]any{tagName: name, tagVersion: "1", tagRelease: "2", tagEpoch: 3}))
	}
	m := layertest.File("var/lib/rpm/Packages.db", string(ndbOf(headers...)))
	all := read(t, m)
	if len(all) != 1 || all[0].Err != nil || len(all[0].Packages) != 3 || all[0].Packages[0] != (Package{"a", "3:1-2", ""}) {
		t.Fatalf("got %s", text(all))
	}
	damage(t, "Packages.db", []layertest.Member{m})
}
