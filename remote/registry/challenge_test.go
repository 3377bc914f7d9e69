package registry

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// show writes challenges in one way.
func show(all []challenge) string {
	var texts []string
	for _, c := range all {
		text := c.scheme
		var names []string
		for name := range c.params {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			text += fmt.Sprintf(" %s=%s", name, c.params[name])
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, " | ")
}

func TestChallenges(t *testing.T) {
	for _, tc := range []struct {
		headers []string
		want    string
	}{
		{nil, ""},
		{[]string{""}, ""},
		{[]string{`Bearer realm="https://a/token",service="s",scope="repository:a/b:pull,push"`}, "bearer realm=https://a/token scope=repository:a/b:pull,push service=s"},
		{[]string{`BEARER REALM="x" , Service = s`}, "bearer realm=x service=s"},
		{[]string{`Basic realm="x", Bearer realm="y"`}, "basic realm=x | bearer realm=y"},
		{[]string{`Basic realm="x"`, `Bearer realm="y"`}, "basic realm=x | bearer realm=y"},
		{[]string{`Negotiate, Basic realm="x"`}, "negotiate | basic realm=x"},
		{[]string{"Negotiate", "NTLM", `Digest realm="x", qop="auth,auth-int", nonce="a\"b", algorithm=MD5`, "Basic"},
			`negotiate | ntlm | digest algorithm=MD5 nonce=a"b qop=auth,auth-int realm=x | basic`},
		{[]string{"Negotiate YWJj/+==, Basic realm=x"}, "negotiate | basic realm=x"},
		{[]string{"NTLM TlRMTVNTUAAC=,Basic realm=x"}, "ntlm | basic realm=x"},
		{[]string{"Negotiate YWJj"}, "negotiate"},
		// RFC 9110, 11.6.1.
		{[]string{`Basic realm="simple", Newauth realm="apps", type=1, title="Login to \"apps\""`}, `basic realm=simple | newauth realm=apps title=Login to "apps" type=1`},
		{[]string{`, ,Basic ,, realm="x",,`, ", "}, "basic realm=x"},
		{[]string{"Bearer\trealm\t=\t\"x\"\t,\tservice=y"}, "bearer realm=x service=y"},
		{[]string{`Bearer realm="a, Basic b=\"c\", d"`}, `bearer realm=a, Basic b="c", d`},
		{[]string{`Bearer realm="first", realm="second"`}, "bearer realm=first"},
		{[]string{`Basic realm=""`}, "basic realm="},
		{[]string{"Bearer"}, "bearer"},
		{[]string{"Bearer,Basic"}, "bearer | basic"},
		// What is malformed spoils no other.
		{[]string{`Bearer realm=https://a/token,service=s`}, "bearer realm=https://a/token service=s"},
		{[]string{`Basic realm="x" Bearer realm="y"`}, "basic realm=x | bearer realm=y"},
		{[]string{`Bearer realm="x" service="s"`}, "bearer realm=x service=s"},
		{[]string{`Basic realm="x", Bearer realm="y`, `Basic realm="z"`}, "basic realm=x | basic realm=z"},
		{[]string{`realm="x", Basic realm="y"`}, "basic realm=y"},
		{[]string{`"Negotiate, x", Basic realm="y"`}, "basic realm=y"},
		{[]string{`(@), Basic realm="y"`}, "basic realm=y"},
		{[]string{"\xff\x00, Basic"}, "basic"},
		{[]string{`Bearer realm=`}, "bearer"},
		{[]string{`Basic realm="x\`, "Bearer"}, "bearer"},
		{[]string{strings.Repeat("Basic,", 1000) + `Bearer realm="y"`}, strings.TrimSuffix(strings.Repeat("basic | ", maxChallenges), " | ")},
	} {
		header := http.Header{"Www-Authenticate": tc.headers, "Proxy-Authenticate": {"Basic realm=proxy"}}
		if got := show(challenges(header)); got != tc.want {
			t.Errorf("%q: got %s, want %s", tc.headers, got, tc.want)
		}
	}
}

// FuzzChallenges: whatever stands before or after, in headers of their own,
// challenges that are well formed are found.
func FuzzChallenges(f *testing.F) {
	f.Add(`Negotiate abc==, Digest realm="\"", x`)
	f.Add(`"`)
	f.Add(`,=,a=b c d=`)
	f.Fuzz(func(t *testing.T, odd string) {
		good := `Bearer realm="https://a/t", scope="a b,c"`
		odd = strings.Join(strings.Split(odd, ",")[:min(8, strings.Count(odd, ",")+1)], ",")
		alone := challenges(http.Header{"Www-Authenticate": {odd}})
		if len(alone) == maxChallenges {
			return
		}
		got := challenges(http.Header{"Www-Authenticate": {odd, good}})
		if len(got) != len(alone)+1 || show(got[len(alone):]) != "bearer realm=https://a/t scope=a b,c" {
			t.Errorf("%q, then a good one: got %s", odd, show(got))
		}
	})
}
