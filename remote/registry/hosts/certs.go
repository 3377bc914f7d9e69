package hosts

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// CertDirs are trees with one directory of certificates a registry, called
// host, host:port or host_port_, and perhaps one called _default for all
// others: *.crt are authorities to trust besides the system's, NAME.cert with
// NAME.key is shown to the registry. The first that is the registry's is used.
type CertDirs []string

// DefaultCertDirs returns the certs.d of containers, of docker and of
// containerd on this machine; see docs/registries.md.
func DefaultCertDirs() CertDirs { return thisMachine().certDirs() }

// TLS returns the TLS settings for a host: with the certificates that the
// directories have for it, and those of w, the wire of a site whose host is home.
// Files in the directories that are of no use count as missing: passed has one
// error for each, which names it. Those that w names are wanted, and the error is
// about them.
func (d CertDirs) TLS(host string, w *Wire, home string) (conf *tls.Config, passed []error, err error) {
	conf = &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: w.SkipVerify}
	for _, name := range w.Authorities {
		if err := addAuthority(conf, name); err != nil {
			return nil, nil, err
		}
	}
	if host == home {
		for _, pair := range w.ClientCerts {
			if err := addPair(conf, pair[0], pair[1]); err != nil {
				return nil, nil, err
			}
		}
	} else {
		passed = addCertDir(conf, d.of(home), false)
	}
	return conf, append(passed, addCertDir(conf, d.of(host), true)...), nil
}

// Has reports whether there are certificates for a host, its own or those for
// all hosts.
func (d CertDirs) Has(host string) bool { return d.of(host) != "" }

// of returns the directory of certificates for host, "" if there is
// none. One with a hosts.toml is not: that names the files itself.
func (d CertDirs) of(host string) string {
	own := hostDirNames(host)
	if host == apiHost(dockerHub) {
		own = append(own, dockerHub) // so podman calls it
	}
	for _, names := range [][]string{own, {"_default"}} {
		for _, root := range d {
			for _, name := range names {
				if !filepath.IsLocal(name) || name == "." {
					continue // the name comes from a redirect
				}
				dir := filepath.Join(root, name)
				if _, err := os.ReadDir(dir); isAbsent(err) || os.IsPermission(err) {
					continue
				}
				if st, err := os.Stat(filepath.Join(dir, "hosts.toml")); err == nil && st.Size() > 0 {
					continue
				}
				return dir
			}
		}
	}
	return ""
}

// Names reports whether a directory, of certificates or with a hosts.toml of
// containerd, is called after the host itself.
func (d CertDirs) Names(host string) bool {
	for _, root := range d {
		for _, name := range hostDirNames(host) {
			if !filepath.IsLocal(name) || name == "." {
				continue // the name comes from a redirect
			}
			if st, err := os.Stat(filepath.Join(root, name)); err == nil && st.IsDir() {
				return true
			}
		}
	}
	return false
}

// addCertDir adds a directory of certificates to conf: *.crt are
// authorities to trust, and, with pairs, NAME.cert with NAME.key is a client
// certificate. Other files have no meaning there. It returns what is wrong with
// those that have.
func addCertDir(conf *tls.Config, dir string, pairs bool) (passed []error) {
	if dir == "" {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return []error{fmt.Errorf("%s: %w", dir, bare(err))}
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		var err error
		switch ext := filepath.Ext(path); {
		case ext == ".crt":
			err = addAuthority(conf, path)
		case ext == ".cert" && pairs:
			err = addPair(conf, path, strings.TrimSuffix(path, ".cert")+".key")
		}
		if err != nil {
			passed = append(passed, err)
		}
	}
	return passed
}

func addAuthority(conf *tls.Config, path string) error {
	pem, err := readConfig(path)
	if err != nil {
		return fmt.Errorf("%s: %w", path, bare(err))
	}
	if conf.RootCAs == nil {
		if conf.RootCAs, err = x509.SystemCertPool(); err != nil {
			conf.RootCAs = x509.NewCertPool()
		}
	}
	if !conf.RootCAs.AppendCertsFromPEM(pem) {
		return fmt.Errorf("%s: no certificate in it", path)
	}
	return nil
}

// addPair adds a client certificate. Without a key of its own the first file
// has both.
func addPair(conf *tls.Config, cert, key string) error {
	if key == "" {
		key = cert
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	var at *fs.PathError
	switch {
	case errors.As(err, &at): // of either of the two
		return fmt.Errorf("%s: %w", at.Path, at.Err)
	case err != nil:
		return fmt.Errorf("%s: %w", cert, err)
	}
	conf.Certificates = append(conf.Certificates, pair)
	return nil
}
