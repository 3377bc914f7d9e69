package hostile

import "slices"

// An Attack is an image that wants something it should not get.
type Attack struct {
	Name, Kind string
	// Make writes the image, n times whatever the attack is made of.
	Make func(m *Image, n int)
	// Full and Small are what n is in the two sizes.
	Full, Small int
	// Refused has to be in the error, in either size, if Full is; an attack
	// without it has to open, and its tree has to be right.
	Refused string
	// SmallOpens says that the small size is none that is refused.
	SmallOpens bool
	// List is a directory of the tree, and Names how many names it has. The
	// default is the root with one.
	List  string
	Names func(n int) int
}

// Attacks returns all attacks by images.
func Attacks() []Attack {
	return slices.Concat(metadataAttacks(), streamAttacks(), manifestAttacks(), tocAttacks())
}

const metadataRefused = "--max-metadata"

func one(int) int { return 1 }

func andSmall(n int) int { return n + 1 }
