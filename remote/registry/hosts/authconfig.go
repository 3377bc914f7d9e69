package hosts

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/imgfs/imgfs/remote/printable"
)

// An authSource is a file, or the content of one.
type authSource struct {
	name    string
	content string // if not a file
	by      string // what names a file that must be there; "": it need not be
	in      string // what names the directory that it may be in; "": it is a usual one
	old     bool   // of the form of .dockercfg, which has nothing but auths
	pipes   *pipes // that were read before; nil: none
}

func (a *AuthFiles) sources() []authSource {
	if a.Path != "" {
		return []authSource{{name: a.Path, by: "it was named", pipes: &a.pipes}}
	}
	if path := os.Getenv("REGISTRY_AUTH_FILE"); path != "" {
		return []authSource{{name: path, by: "REGISTRY_AUTH_FILE names it", pipes: &a.pipes}}
	}
	runtimeDir := os.Getenv("XDG_RUNTIME_DIR")
	if runtimeDir == "" {
		// So podman does for users without a session.
		runtimeDir = fmt.Sprintf("/run/containers/%d", os.Getuid())
	} else {
		runtimeDir = filepath.Join(runtimeDir, "containers")
	}
	sources := []authSource{{name: filepath.Join(runtimeDir, "auth.json")}}
	// Without a home directory there are fewer places to look.
	home, _ := os.UserHomeDir()
	inHome := func(env, dir, name string) {
		if value := os.Getenv(env); value != "" {
			sources = append(sources, authSource{name: filepath.Join(value, name), in: env + " names its directory"})
		} else if home != "" {
			sources = append(sources, authSource{name: filepath.Join(home, dir, name)})
		}
	}
	inHome("XDG_CONFIG_HOME", ".config", "containers/auth.json")
	if content := os.Getenv("DOCKER_AUTH_CONFIG"); content != "" {
		sources = append(sources, authSource{name: "DOCKER_AUTH_CONFIG", content: content})
	}
	inHome("DOCKER_CONFIG", ".docker", "config.json")
	if home != "" {
		sources = append(sources, authSource{name: filepath.Join(home, ".dockercfg"), old: true})
	}
	return sources
}

// authConfig has the parts of a config.json or auth.json that are used.
type authConfig struct {
	auths, helpers authEntries
	store          string
}

type authEntries map[string]json.RawMessage

// read returns what is in the file, as far as it can be used, and what cannot.
func (s authSource) read() (*authConfig, []error) {
	data, err := s.bytes()
	if err != nil {
		return new(authConfig), []error{err}
	}
	data = bytes.TrimSpace(bytes.TrimPrefix(data, []byte("\ufeff")))
	// podman writes an empty file where there are no credentials.
	if len(data) == 0 {
		return new(authConfig), nil
	}
	return s.decode(data)
}

// bytes returns the content, nothing if the file need not be there and is not.
func (s authSource) bytes() ([]byte, error) {
	if s.content != "" {
		return []byte(s.content), nil
	}
	name := printable.Text(s.name)
	if s.by == "" {
		// Opening a pipe would wait for somebody to write.
		if st, err := os.Stat(s.name); err == nil && st.Mode()&(fs.ModeNamedPipe|fs.ModeSocket) != 0 {
			return nil, fmt.Errorf("%s: it is no regular file", name)
		}
	}
	data, err := s.pipes.read(s.name)
	switch {
	case s.in != "" && errors.Is(err, syscall.ENOTDIR) && isFile(filepath.Dir(s.name)): // and not /dev/null, for none
		return nil, fmt.Errorf("%s: %w; %s", name, bare(err), s.in)
	case err == nil, s.by == "" && isAbsent(err):
		return data, nil
	case s.by != "" && isAbsent(err):
		return nil, fmt.Errorf("%s: %w; %s", name, bare(err), s.by)
	}
	return nil, fmt.Errorf("%s: %w", name, bare(err))
}

func isFile(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular()
}

// bare returns the reason of an error of package os, without the file's name.
func bare(err error) error {
	var at *fs.PathError
	if errors.As(err, &at) {
		return at.Err
	}
	return err
}

// decode reads the parts one by one, so that none spoils the others.
func (s authSource) decode(data []byte) (*authConfig, []error) {
	config, name := new(authConfig), printable.Text(s.name)
	var parts struct{ Auths, CredsStore, CredHelpers json.RawMessage }
	var into any = &parts
	if s.old {
		into = &parts.Auths
	}
	// The decoder's error can quote its input, which may be a password.
	if err := json.Unmarshal(data, into); err != nil {
		return config, []error{fmt.Errorf("%s: not a JSON file of credentials%s", name, place(data, err))}
	}
	var errs []error
	for _, part := range []struct {
		name string
		data json.RawMessage
		into any
	}{{"auths", parts.Auths, &config.auths}, {"credsStore", parts.CredsStore, &config.store}, {"credHelpers", parts.CredHelpers, &config.helpers}} {
		if len(part.data) > 0 && json.Unmarshal(part.data, part.into) != nil {
			errs = append(errs, fmt.Errorf("%s: %s is not of the form expected", name, part.name))
		}
	}
	return config, errs
}

// place says where in a document its decoder found an error, if it knows.
func place(data []byte, err error) string {
	var syntax *json.SyntaxError
	if !errors.As(err, &syntax) || syntax.Offset < 1 || syntax.Offset > int64(len(data)) {
		return ""
	}
	before := data[:syntax.Offset-1]
	line := bytes.Count(before, []byte("\n")) + 1
	return fmt.Sprintf(" (line %d, column %d)", line, len(before)-bytes.LastIndexByte(before, '\n'))
}

// CheckAuthFile returns why a file of credentials that somebody named is of no use
// as a whole, or nil. A pipe, which can be read only once, is not looked into.
func CheckAuthFile(path string) error {
	st, err := os.Stat(path)
	if err != nil || st.Mode()&fs.ModeNamedPipe != 0 {
		return err
	}
	source := authSource{name: path, by: "it was named"}
	data, err := source.bytes()
	if err != nil {
		return err
	}
	if !json.Valid(bytes.TrimSpace(data)) {
		_, errs := source.read()
		return errors.Join(errs...)
	}
	return nil
}

// An authText is text in an entry.
type authText struct {
	text string
	bad  bool // it was something else
}

// UnmarshalJSON takes anything else than a string for an empty one.
func (t *authText) UnmarshalJSON(data []byte) error {
	t.bad = json.Unmarshal(data, &t.text) != nil
	return nil
}

// decodeAuth decodes an entry of auths. Its errors quote nothing of it, and come
// beside what there is of use.
func decodeAuth(raw json.RawMessage) (Credential, error) {
	var entry struct{ Auth, Username, Password, IdentityToken, RegistryToken authText }
	if json.Unmarshal(raw, &entry) != nil {
		return Credential{}, errors.New("it is not of the form expected")
	}
	c := Credential{User: entry.Username.text, Password: entry.Password.text, IdentityToken: entry.IdentityToken.text, RegistryToken: entry.RegistryToken.text}
	for _, t := range []struct {
		name string
		authText
	}{{"auth", entry.Auth}, {"username", entry.Username}, {"password", entry.Password}, {"identitytoken", entry.IdentityToken}, {"registrytoken", entry.RegistryToken}} {
		if t.bad {
			return c, fmt.Errorf("its %s is no text", t.name)
		}
	}
	if entry.Auth.text == "" {
		return c, nil
	}
	user, password, err := ParseAuth(entry.Auth.text)
	if err == nil {
		c.User, c.Password = user, password
	}
	return c, err
}
