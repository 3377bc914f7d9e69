package entry

import "github.com/imgfs/imgfs/fs"

// An Image is an image whose files a command reads.
type Image struct {
	Name  string // as the user has it
	Title string // for messages
	Tree  *fs.Tree
}

// An Argument names a file or directory of an image.
type Argument struct {
	Typed string // as it is printed
	Path  string // in the image
	Image *Image
}
