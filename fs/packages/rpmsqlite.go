package packages

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/imgfs/imgfs/fs"
	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/vfs/readervfs"
)

// databases numbers the databases that are open, as SQLite opens them by name.
var databases atomic.Int64

// sqliteMemory bounds what SQLite takes for one database, and the size of a header.
const sqliteMemory = maxData + 64<<20

// readSQLite reads rpm's database rpmdb.sqlite, with what its write-ahead log has
// besides.
func readSQLite(ctx context.Context, t *fs.Tree, path string, n fs.Node) (all []Package, err error) {
	f, err := open(ctx, n)
	if err != nil {
		return nil, err
	}
	w, err := openWAL(ctx, t, path+"-wal")
	if err != nil {
		return nil, fmt.Errorf("%s-wal: %w", path, err)
	}
	db := &database{file: f, log: w}
	all, err = querySQLite(ctx, db)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case db.failure() != nil: // what SQLite says of it is that there was one
		return nil, db.failure()
	}
	return all, err
}

// querySQLite reads the headers in the table Packages. SQLite is Go code that was made of
// WebAssembly: what a hostile database has it do stays in its own memory, and at worst
// is a panic.
func querySQLite(ctx context.Context, db *database) (all []Package, err error) {
	defer func() {
		if r := recover(); r != nil {
			all, err = nil, fmt.Errorf("%w: SQLite gave up: %v", ErrFormat, r)
		}
	}()
	damaged := func(err error) error { return fmt.Errorf("%w: %v", ErrFormat, err) }
	name := fmt.Sprintf("imgfs-rpmdb-%d", databases.Add(1))
	readervfs.Create(name, db)
	defer readervfs.Delete(name)
	conn, err := sqlite3.OpenContext(ctx, "file:"+name+"?vfs=reader&mode=ro&immutable=1")
	if err != nil {
		return nil, damaged(err)
	}
	defer conn.Close()
	conn.SetInterrupt(ctx)
	conn.HardHeapLimit(sqliteMemory)
	conn.Limit(sqlite3.LIMIT_LENGTH, maxData)
	conn.Config(sqlite3.DBCONFIG_DEFENSIVE, true)
	conn.Config(sqlite3.DBCONFIG_TRUSTED_SCHEMA, false)
	if err := checkTable(conn); err != nil {
		return nil, err
	}
	stmt, _, err := conn.Prepare("SELECT blob FROM Packages NOT INDEXED")
	if err != nil {
		return nil, damaged(err)
	}
	defer stmt.Close()
	total := int64(0)
	for stmt.Step() {
		blob := stmt.ColumnRawBlob(0)
		if total += int64(len(blob)); total > MaxSize {
			return nil, fmt.Errorf("%w: headers of more than %d bytes", ErrTooLarge, int64(MaxSize))
		}
		p, err := parseHeader(blob)
		if err != nil {
			return nil, fmt.Errorf("package %d: %w", len(all)+1, err)
		}
		if all, err = add(all, p); err != nil {
			return nil, err
		}
	}
	if err := stmt.Err(); err != nil {
		return nil, damaged(err)
	}
	return all, nil
}

// checkTable refuses a database in which Packages is no table or blob no column that is
// stored: what a view or a generated column is computed from is a stranger's, and a single
// function can take hours in which nothing interrupts it. What counts is the schema as
// SQLite has parsed it, not the columns of sqlite_schema, which may say something else.
func checkTable(conn *sqlite3.Conn) error {
	stmt, _, err := conn.Prepare("SELECT 1 FROM pragma_table_list('Packages') AS t, pragma_table_xinfo('Packages') AS c " +
		"WHERE t.schema = 'main' AND t.type = 'table' AND c.name = 'blob' COLLATE NOCASE AND c.hidden = 0")
	if err != nil {
		return fmt.Errorf("%w: %v", ErrFormat, err)
	}
	defer stmt.Close()
	found := stmt.Step()
	if err := stmt.Err(); err != nil {
		return fmt.Errorf("%w: %v", ErrFormat, err)
	}
	if !found {
		return fmt.Errorf("%w: no table Packages with a column blob", ErrFormat)
	}
	return nil
}

// A database is the file of a SQLite database as its write-ahead log has it. It says that
// it has none, as SQLite would want to share memory with other processes for that.
type database struct {
	*file
	log *wal
}

// failure returns why the file could not be read.
func (d *database) failure() error {
	if d.log != nil && d.log.err != nil {
		return d.log.err
	}
	return d.err
}

// Size implements ioutil.SizeReaderAt.
func (d *database) Size() (int64, error) {
	if d.log != nil && d.log.pages != nil {
		return d.log.size, nil
	}
	return d.size, nil
}

// ReadAt implements io.ReaderAt.
func (d *database) ReadAt(p []byte, off int64) (int, error) {
	n, err := d.readPages(p, off)
	for i := max(0, versionAt-off); i < min(int64(n), versionAt+2-off); i++ {
		if p[i] == 2 {
			p[i] = 1
		}
	}
	return n, err
}

// versionAt is where the header of a database has two bytes that are 2 if it has a log,
// and 1 if not: sqlite.org/fileformat2.html, "File format version numbers".
const versionAt = 18

func (d *database) readPages(p []byte, off int64) (int, error) {
	if d.log == nil || d.log.pages == nil {
		return d.file.ReadAt(p, off)
	}
	done := 0
	for done < len(p) {
		at := off + int64(done)
		if at >= d.log.size {
			return done, io.EOF
		}
		page, within := at/d.log.pageSize+1, at%d.log.pageSize
		part := p[done:]
		part = part[:min(int64(len(part)), d.log.pageSize-within)]
		var k int
		var err error
		if frame, ok := d.log.pages[uint32(page)]; ok {
			k, err = d.log.ReadAt(part, frame+within)
		} else {
			k, err = d.file.ReadAt(part, at)
		}
		if done += k; k < len(part) {
			return done, err
		}
	}
	return done, nil
}
