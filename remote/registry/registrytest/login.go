package registrytest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// authorized tells whether a request may be answered, and answers it if not.
func (s *Server) authorized(w http.ResponseWriter, r *http.Request, repository string) bool {
	switch s.opts.Login {
	case Basic:
		user, password, ok := r.BasicAuth()
		if ok && s.opts.User != "" && user == s.opts.User && password == s.opts.Password {
			return true
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="registrytest"`)
	case Bearer:
		token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		s.mu.Lock()
		granted, valid := s.tokens[token]
		s.mu.Unlock()
		if valid && allows(granted, repository, r.Method) {
			return true
		}
		if ok && s.opts.RefusedStatus != 0 {
			fail(w, s.opts.RefusedStatus, "DENIED", "your authorization token has expired")
			return false
		}
		scope := s.opts.Scope
		if scope == "" && repository != "" {
			scope = "repository:" + repository + ":" + actions(r.Method)
		}
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="registrytest",scope="%s"`, s.main.URL, scope))
	default:
		return true
	}
	fail(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
	return false
}

// actions are those that a request needs a token for.
func actions(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead:
		return "pull"
	case http.MethodDelete:
		return "delete"
	}
	return "pull,push"
}

// allows tells whether a token's scopes allow a request. All allow to read.
func allows(granted, repository, method string) bool {
	want := actions(method)
	if want == "pull" {
		return true
	}
	want = strings.TrimPrefix(want, "pull,")
	for scope := range strings.FieldsSeq(granted) {
		list, ok := strings.CutPrefix(scope, "repository:"+repository+":")
		if ok && slices.Contains(strings.Split(list, ","), want) {
			return true
		}
	}
	return false
}

// serveToken answers requests for tokens, those with GET and user and
// password and those with POST and a refresh token.
// https://distribution.github.io/distribution/spec/auth/
func (s *Server) serveToken(w http.ResponseWriter, r *http.Request) {
	s.handle(Token, w, r, func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm() // a form that cannot be read is empty
		user, password, _ := r.BasicAuth()
		allowed := s.opts.User == "" || user == s.opts.User && password == s.opts.Password
		if r.Method == http.MethodPost {
			allowed = s.opts.IdentityToken != "" && r.PostFormValue("refresh_token") == s.opts.IdentityToken
		}
		if !allowed {
			fail(w, http.StatusUnauthorized, "UNAUTHORIZED", "incorrect username or password")
			return
		}
		s.mu.Lock()
		s.issued++
		token := fmt.Sprintf("secret-token-%d", s.issued)
		// With GET they are in the query, and with POST in the body.
		s.tokens[token] = strings.Join(r.Form["scope"], " ")
		s.mu.Unlock()
		_ = json.NewEncoder(w).Encode(map[string]any{"token": token, "access_token": token, "expires_in": 300})
	})
}

// RevokeTokens makes all tokens given so far invalid.
func (s *Server) RevokeTokens() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.tokens)
}

// signedURL returns an address of a blob at the second server, in the form of
// S3's, with a signature to keep secret.
func (s *Server) signedURL(d digest.Digest) string {
	s.mu.Lock()
	generation := s.generation
	s.mu.Unlock()
	scheme := "http"
	if s.opts.TLS {
		scheme = "https"
	}
	return fmt.Sprintf("%s://%s/storage/%s?X-Amz-Date=%s&X-Amz-Expires=%d&X-Amz-Signature=secret-signature-%d",
		scheme, s.CDNHost(), d, time.Now().UTC().Format("20060102T150405Z"), int(s.opts.URLLife.Seconds()), generation)
}

// ExpireURLs makes all URLs of the second server given so far invalid.
func (s *Server) ExpireURLs() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.generation++
}

func (s *Server) serveCDN(w http.ResponseWriter, r *http.Request) {
	s.handle(CDN, w, r, func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		s.mu.Lock()
		signature := fmt.Sprintf("secret-signature-%d", s.generation)
		s.mu.Unlock()
		signed, err := time.Parse("20060102T150405Z", query.Get("X-Amz-Date"))
		life, err2 := strconv.Atoi(query.Get("X-Amz-Expires"))
		if err != nil || err2 != nil || time.Since(signed) > time.Duration(life)*time.Second || query.Get("X-Amz-Signature") != signature {
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>")
			return
		}
		s.serveContent(w, r, digest.Digest(strings.TrimPrefix(r.URL.Path, "/storage/")))
	})
}
