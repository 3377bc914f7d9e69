package containerd

import (
	"fmt"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/registry/hosts"
	"google.golang.org/protobuf/encoding/protowire"
)

// Numbers of fields in k8s.io/cri-api/pkg/apis/runtime/v1/api.proto.
const (
	pullImage = 1 // PullImageRequest.image
	pullAuth  = 2 // PullImageRequest.auth

	specImage = 1 // ImageSpec.image

	authUsername      = 1 // AuthConfig
	authPassword      = 2
	authAuth          = 3
	authServerAddress = 4
	authIdentityToken = 5
	authRegistryToken = 6
)

// A pullRequest is what a PullImageRequest says of image and credential.
type pullRequest struct {
	image string
	auth  struct{ username, password, auth, serverAddress, identityToken, registryToken string }
}

// parsePull reads a PullImageRequest. Fields that are not known are passed over. Errors quote
// nothing of it.
func parsePull(message []byte) (pullRequest, error) {
	var r pullRequest
	err := eachBytes(message, func(number protowire.Number, value []byte) error {
		switch number {
		case pullImage:
			return eachBytes(value, func(number protowire.Number, value []byte) error {
				if number == specImage {
					r.image = string(value)
				}
				return nil
			})
		case pullAuth:
			return eachBytes(value, r.setAuth)
		}
		return nil
	})
	if err != nil {
		return pullRequest{}, fmt.Errorf("PullImageRequest: %w", err)
	}
	return r, nil
}

// setAuth sets a field of the credential.
func (r *pullRequest) setAuth(number protowire.Number, value []byte) error {
	a := &r.auth
	fields := map[protowire.Number]*string{authUsername: &a.username, authPassword: &a.password, authAuth: &a.auth,
		authServerAddress: &a.serverAddress, authIdentityToken: &a.identityToken, authRegistryToken: &a.registryToken}
	if field := fields[number]; field != nil {
		*field = string(value)
	}
	return nil
}

// eachBytes calls a function for each field of a message that is a text, bytes or a message.
func eachBytes(message []byte, f func(protowire.Number, []byte) error) error {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return protowire.ParseError(n)
		}
		message = message[n:]
		if kind != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(number, kind, message); n < 0 {
				return protowire.ParseError(n)
			}
			message = message[n:]
			continue
		}
		value, n := protowire.ConsumeBytes(message)
		if n < 0 {
			return protowire.ParseError(n)
		}
		if err := f(number, value); err != nil {
			return err
		}
		message = message[n:]
	}
	return nil
}

// credential returns what the image is pulled with, Empty if that is nothing, or for another
// server than the image's: then containerd does not use it either. A user goes before an
// identity token, and that before auth, as with containerd.
func (r *pullRequest) credential() (hosts.Credential, error) {
	none, a := hosts.Credential{}, &r.auth
	if a.serverAddress != "" {
		ref, err := remote.ParseReference(r.image)
		if err != nil || !hosts.IsServer(a.serverAddress, ref.Registry) {
			return none, err
		}
	}
	switch {
	case a.username != "":
		return hosts.Credential{User: a.username, Password: a.password}, nil
	case a.identityToken != "":
		return hosts.Credential{IdentityToken: a.identityToken}, nil
	case a.auth != "":
		user, password, err := hosts.ParseAuth(a.auth)
		return hosts.Credential{User: user, Password: password}, err
	}
	return hosts.Credential{RegistryToken: a.registryToken}, nil
}
