package main

import (
	"github.com/imgfs/imgfs/cmd/imgfs/internal/containerd"
	"github.com/spf13/pflag"
)

// credentialsFlag declares the flag by which imgfs snapshotter says where it can be asked for
// the credentials of pulls.
func (e *env) credentialsFlag(f *pflag.FlagSet) {
	f.StringVar(&e.credentials, containerd.CredentialsFlag, "", "")
	f.Lookup(containerd.CredentialsFlag).Hidden = true
}
