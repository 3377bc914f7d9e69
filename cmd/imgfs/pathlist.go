package main

import (
	"encoding/json"

	"github.com/imgfs/imgfs/fs/bundle"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// ownersFlag has a mount show the owners that a user namespace takes for the image's. imgfs
// bundle sets it.
const ownersFlag = "owners"

// An idMappings is the value of a flag that says, in JSON, which users and groups a user
// namespace has.
type idMappings struct{ UIDs, GIDs []specs.LinuxIDMapping }

// String implements pflag.Value.
func (m *idMappings) String() string {
	if len(m.UIDs) == 0 {
		return ""
	}
	text, err := json.Marshal(m)
	if err != nil {
		return ""
	}
	return string(text)
}

// Type implements pflag.Value.
func (m *idMappings) Type() string { return "ids" }

// Set implements pflag.Value.
func (m *idMappings) Set(s string) error { return json.Unmarshal([]byte(s), m) }

// owners returns what fusefs.Options have as Owners.
func (m *idMappings) owners() func(uid, gid uint32) (uint32, uint32) {
	if len(m.UIDs) == 0 {
		return nil
	}
	return bundle.Owners(m.UIDs, m.GIDs)
}

// directoriesFlag has a mount show directories that the image does not have. imgfs bundle
// sets it.
const directoriesFlag = "directories"

// A pathList is the value of a flag that is a list of paths, in JSON: they may be any
// strings.
type pathList []string

// String implements pflag.Value.
func (l *pathList) String() string {
	if len(*l) == 0 {
		return ""
	}
	text, err := json.Marshal([]string(*l))
	if err != nil {
		return ""
	}
	return string(text)
}

// Type implements pflag.Value.
func (l *pathList) Type() string { return "paths" }

// Set implements pflag.Value.
func (l *pathList) Set(s string) error { return json.Unmarshal([]byte(s), (*[]string)(l)) }
