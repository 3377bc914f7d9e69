package tarscan

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/remote/magic"
)

// Bounds that the tar formats do not set: see Scanner.
const (
	maxMeta     = 1 << 20
	maxName     = 4096 // of a path, and of a name twice that
	maxNamePart = 255
	maxTarget   = 4095 // of a symlink
	// Owners: one below zero is what it is for chown(2), which takes 32 bits.
	minOwner = math.MinInt32
	maxOwner = math.MaxUint32
)

func (s *Scanner) takeHeader(b *rawBlock) error {
	var h tarHeader
	if err := b.parse(&h); err != nil {
		s.label = string(clip(h.name))
		if s.at == 0 {
			err = beginsLike(b[:], err)
		}
		return s.refuse(err)
	}
	switch h.flag {
	case 'x', 'g', 'L', 'K':
		s.label = s.text.Own(clip(h.name))
		return s.takeMeta(&h)
	}
	return s.takeEntry(&h, b)
}

// beginsLike adds to an error what a tar that is none looks like.
func beginsLike(head []byte, err error) error {
	if format := magic.Of(head); format != (magic.Format{}) {
		return fmt.Errorf("%w; it begins like %s", err, format)
	}
	return err
}

// takeMeta begins an entry that is about others.
func (s *Scanner) takeMeta(h *tarHeader) error {
	switch h.flag {
	case 'L':
		return s.beginMeta(&s.longName, h.size)
	case 'K':
		return s.beginMeta(&s.longLink, h.size)
	case 'g':
		// As archive/tar returns at a global header, what stood before it
		// is lost to the container runtimes.
		s.forget()
		s.global.reset()
		return s.beginMeta(&s.global.body, h.size)
	}
	s.pax.reset()
	s.hasPax = true
	return s.beginMeta(&s.pax.body, h.size)
}

func (s *Scanner) beginMeta(to *[]byte, size int64) error {
	if size > maxMeta {
		return s.refuse(fmt.Errorf("extended header or long name of %d bytes, more than %d", size, maxMeta))
	}
	s.meta, *to = to, (*to)[:0]
	return s.begin(inMeta, size)
}

func (s *Scanner) metaDone() error {
	switch s.meta {
	case &s.pax.body:
		return s.parsePax(&s.pax)
	case &s.global.body:
		return s.parsePax(&s.global)
	}
	*s.meta = cString(*s.meta)
	return nil
}

func (s *Scanner) parsePax(h *paxHeader) error {
	if at, err := h.parse(&s.text); err != nil {
		return s.refuseAt(s.at+blockSize+int64(at), err)
	}
	return nil
}

// forget drops the meta entries that waited for the next entry.
func (s *Scanner) forget() {
	s.hasPax = false
	s.longName, s.longLink = s.longName[:0], s.longLink[:0]
}

// takeEntry begins the entry of header h, which is in b.
func (s *Scanner) takeEntry(h *tarHeader, b *rawBlock) error {
	if !s.hasPax {
		s.pax.reset()
	}
	kind, err := s.describe(h)
	if err == nil {
		err = s.checkNames()
	}
	s.forget()
	if err != nil {
		return s.refuse(err)
	}
	switch kind {
	case sparseOldGNU:
		err = s.sparse.addGNU(b[386:482], 4)
		if err == nil && b[482] != 0 {
			s.state, s.left = inExtension, h.size
			return nil
		}
	case sparsePax:
		err = s.sparse.readPax(&s.pax)
	case sparseBody:
		s.state, s.left = inMap, h.size
		s.bodyMap = bodyMap{want: -1}
		return nil
	}
	if err != nil {
		return s.refuse(err)
	}
	return s.beginContent(kind, h.size)
}

// describe fills in s.entry but for the content, and makes h.size what is
// stored of that.
func (s *Scanner) describe(h *tarHeader) (sparseKind, error) {
	e := &s.entry
	*e = layerindex.Entry{Mode: uint32(h.mode & 07777), ModSec: h.mtime}
	if len(s.pax.xattrs) > 0 {
		e.Xattrs = s.pax.xattrs
	}
	s.name(h)
	// A header of a file must make sense though a record overrides it.
	if h.size < 0 && (h.flag < '1' || h.flag > '6') {
		return notSparse, fmt.Errorf("size %d is out of range", h.size)
	}
	if err := s.pax.numbers(h); err != nil {
		return notSparse, err
	}
	if !isOwner(h.uid) || !isOwner(h.gid) {
		return notSparse, fmt.Errorf("owner %d:%d is out of range", h.uid, h.gid)
	}
	e.UID, e.GID = uint32(h.uid), uint32(h.gid)
	if err := s.pax.times(e); err != nil {
		return notSparse, err
	}
	kind, err := s.sparseFile(h)
	if err != nil {
		return notSparse, err
	}
	if err := s.setType(h, kind); err != nil {
		return notSparse, err
	}
	// The name that a sparse file had before GNU tar made one up for readers
	// that do not know of sparse files. It decides nothing about the type.
	if name := s.pax.sparse.name; len(name) > 0 && (kind == sparsePax || kind == sparseBody) {
		e.Name = s.text.Own(name)
		s.label = e.Name
	}
	return kind, nil
}

func isOwner(id int64) bool { return id >= minOwner && id <= maxOwner }

// name chooses between the names that an entry may have. GNU's long ones win
// over pax records, as in archive/tar; in GNU tar it is the other way round.
func (s *Scanner) name(h *tarHeader) {
	e, p := &s.entry, &s.pax
	switch {
	case len(s.longName) > 0:
		e.Name = s.text.Own(s.longName)
	case len(p.path) > 0:
		e.Name = s.text.Own(p.path)
	case len(h.prefix) > 0:
		s.joined = append(append(append(s.joined[:0], h.prefix...), '/'), h.name...)
		e.Name = s.text.Own(s.joined)
	default:
		e.Name = s.text.Own(h.name)
	}
	s.label = e.Name
	if h.flag != byte(layerindex.TypeLink) && h.flag != byte(layerindex.TypeSymlink) {
		return
	}
	switch {
	case len(s.longLink) > 0:
		e.Linkname = s.text.Own(s.longLink)
	case len(p.linkpath) > 0:
		e.Linkname = s.text.Own(p.linkpath)
	default:
		e.Linkname = s.text.Own(h.linkname)
	}
}

// sparseFile starts the map of a sparse file and sets the size of the file.
func (s *Scanner) sparseFile(h *tarHeader) (sparseKind, error) {
	if h.flag == 'S' {
		// star has the flag too, with another map. No layer comes from it.
		if h.dialect != dialectGNU {
			return notSparse, errors.New("sparse file that is not GNU tar's")
		}
		if h.realSize < 0 {
			return notSparse, fmt.Errorf("size %d is out of range", h.realSize)
		}
		s.entry.Size = h.realSize
		s.sparse.reset(h.realSize)
		return sparseOldGNU, nil
	}
	kind := s.pax.sparse.kind()
	if kind == notSparse {
		s.entry.Size = h.size
		return notSparse, nil
	}
	size, err := s.pax.sparse.fileSize(h.size)
	s.entry.Size = size
	s.sparse.reset(size)
	return kind, err
}

// setType sets the type. Only files have a body: what the other types claim to
// be their size is not followed by as many bytes.
func (s *Scanner) setType(h *tarHeader, kind sparseKind) error {
	e := &s.entry
	switch h.flag {
	case 'S':
		e.Type = layerindex.TypeReg
	case 0, '0', '7':
		e.Type = layerindex.TypeReg
		// A v7 directory may claim any size, and a sparse map, which is then
		// refused. With a POSIX flag it is a directory to GNU tar and a file to
		// archive/tar, which reads the content: here it is a directory only if
		// there is none.
		if strings.HasSuffix(e.Name, "/") && (h.flag == 0 || kind == notSparse && h.size == 0) {
			e.Type = layerindex.TypeDir
		}
	case '1', '2', '3', '4', '5', '6':
		e.Type = layerindex.Type(h.flag)
	default:
		return fmt.Errorf("typeflag %q is not one of a layer's", h.flag)
	}
	if e.Type != layerindex.TypeReg {
		if kind != notSparse {
			return errors.New("sparse map of what is no file")
		}
		e.Size, h.size = 0, 0
	}
	if e.Type == layerindex.TypeChar || e.Type == layerindex.TypeBlock {
		if h.major < 0 || h.major > math.MaxUint32 || h.minor < 0 || h.minor > math.MaxUint32 {
			return fmt.Errorf("device number %d:%d is out of range", h.major, h.minor)
		}
		e.Major, e.Minor = uint32(h.major), uint32(h.minor)
	}
	return nil
}

// checkNames refuses what Linux can't hold.
func (s *Scanner) checkNames() error {
	e := &s.entry
	if len(e.Name) > maxName || len(e.Linkname) > maxTarget {
		s.label = string(clip([]byte(e.Name))) + "..."
	}
	return CheckNames(e.Type, e.Name, e.Linkname)
}

// CheckNames refuses the name and the link target of an entry that a Linux file system
// cannot hold, whoever says that a layer has them: paths over 4,096 bytes or with a
// part over 255, targets of symlinks over 4,095, and NUL.
func CheckNames(t layerindex.Type, name, target string) error {
	if isLong(name) || (t == layerindex.TypeLink && isLong(target)) || (t != layerindex.TypeLink && len(target) > maxTarget) {
		return fmt.Errorf("name of %d bytes with a link target of %d", len(name), len(target))
	}
	if strings.IndexByte(name, 0) >= 0 {
		return errors.New("NUL in the name")
	}
	if len(name) <= maxNamePart {
		return nil
	}
	part := 0
	for i := range len(name) {
		if part++; name[i] == '/' {
			part = 0
		} else if part > maxNamePart {
			return fmt.Errorf("part of the name is over %d bytes", maxNamePart)
		}
	}
	return nil
}

// isLong reports whether a name is of a path that is too long. A path does not
// have the "./" that names begin with where "." was archived, nor the slash
// behind a directory's.
func isLong(name string) bool {
	if len(name) <= maxName {
		return false
	}
	n := -1 // no slash before the first
	for part := range strings.SplitSeq(name, "/") {
		if part != "" && part != "." {
			n += 1 + len(part)
		}
	}
	return n > maxName || len(name) > 2*maxName
}

// takeExtension takes a block that holds 21 more extents of an old GNU map.
func (s *Scanner) takeExtension(b *rawBlock) error {
	err := s.sparse.addBlock()
	if err == nil {
		err = s.sparse.addGNU(b[:504], 21)
	}
	if err != nil {
		return s.refuseAt(s.off-blockSize, err)
	}
	if b[504] != 0 {
		return nil
	}
	return s.beginContent(sparseOldGNU, s.left)
}

// takeMapBlock takes a block of a map that is part of the body.
func (s *Scanner) takeMapBlock(b *rawBlock) error {
	if s.left -= blockSize; s.left < 0 {
		return s.refuse(errors.New("sparse map is longer than the body it is in"))
	}
	whole, err := false, s.sparse.addBlock()
	if err == nil {
		whole, err = s.bodyMap.read(b, &s.sparse)
	}
	if err != nil {
		return s.refuseAt(s.off-blockSize, err)
	}
	if !whole {
		return nil
	}
	return s.beginContent(sparseBody, s.left)
}

// beginContent begins the stored bytes of the entry.
func (s *Scanner) beginContent(kind sparseKind, stored int64) error {
	e := &s.entry
	if e.Type == layerindex.TypeReg {
		e.Off = s.off
	}
	if kind != notSparse {
		if s.sparse.stored != stored {
			return s.refuse(fmt.Errorf("sparse map tells of %d bytes, the entry has %d", s.sparse.stored, stored))
		}
		if !s.sparse.dense() {
			e.Sparse = s.sparse.extents
		}
	}
	return s.begin(inContent, stored)
}
