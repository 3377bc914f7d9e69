package bundle

import "github.com/opencontainers/runtime-spec/specs-go"

// nobody is the owner of files whose own a user namespace does not have.
const nobody = 65534

// Owners returns the function that gives, for the owner and group of a file in the image,
// those on the machine that a user namespace takes for them. Who mounts outside of the
// namespace shows files with these owners, so that they are the image's inside.
func Owners(uids, gids []specs.LinuxIDMapping) func(uid, gid uint32) (uint32, uint32) {
	return func(uid, gid uint32) (uint32, uint32) { return outside(uids, uid), outside(gids, gid) }
}

func outside(ids []specs.LinuxIDMapping, id uint32) uint32 {
	for _, m := range ids {
		if id >= m.ContainerID && id-m.ContainerID < m.Size {
			return m.HostID + id - m.ContainerID
		}
	}
	return nobody
}
