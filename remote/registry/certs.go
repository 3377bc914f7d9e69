package registry

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// tlsConfig returns the TLS settings for host, with what CertDirs have for it
// and for the site that it is asked for.
func tlsConfig(o *Options, host string, w *wire) (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: w.skipVerify}
	if o.TLSVerify != nil {
		conf.InsecureSkipVerify = !*o.TLSVerify
	}
	for _, name := range w.authorities {
		if err := addAuthority(conf, name); err != nil {
			return nil, err
		}
	}
	if host == w.home {
		for _, pair := range w.pairs {
			if err := addPair(conf, pair[0], pair[1]); err != nil {
				return nil, err
			}
		}
	} else if err := addCertDir(conf, certDir(o, w.home), false); err != nil {
		return nil, err
	}
	return conf, addCertDir(conf, certDir(o, host), true)
}

// certDir returns the directory of certificates for host, "" if there is
// none. One with a hosts.toml is not: that names the files itself.
func certDir(o *Options, host string) string {
	own := hostDirNames(host)
	if host == apiHost(dockerHub) {
		own = append(own, dockerHub) // so podman calls it
	}
	for _, names := range [][]string{own, {"_default"}} {
		for _, root := range o.CertDirs {
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

// addCertDir adds what a directory of certificates holds to conf: *.crt are
// authorities to trust, and, with pairs, NAME.cert with NAME.key is a client
// certificate. Other files have no meaning there.
func addCertDir(conf *tls.Config, dir string, pairs bool) error {
	if dir == "" {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch ext := filepath.Ext(path); {
		case ext == ".crt":
			err = addAuthority(conf, path)
		case ext == ".cert" && pairs:
			err = addPair(conf, path, strings.TrimSuffix(path, ".cert")+".key")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func addAuthority(conf *tls.Config, path string) error {
	pem, err := os.ReadFile(path)
	if err != nil {
		return err
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
	if err != nil {
		return fmt.Errorf("%s: %w", cert, err)
	}
	conf.Certificates = append(conf.Certificates, pair)
	return nil
}
