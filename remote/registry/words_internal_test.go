package registry

import (
	"context"
	"encoding/base64"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/imgfs/imgfs/remote/printable"
)

func TestWords(t *testing.T) {
	long := strings.Repeat("all work and no play ", 30)
	for _, tc := range []struct{ name, contentType, body, want string }{
		{"OCI", "application/json", `{"errors":[{"code":"DENIED","message":"over its quota","detail":null}]}`, "over its quota"},
		{"OCI, only a code", "application/json", `{"errors":[{"code":"NAME_UNKNOWN"}]}`, "NAME_UNKNOWN"},
		{"OCI, detail for people", "application/json", `{"errors":[{"code":"DENIED","message":"denied","detail":"ask the help desk"}]}`, "denied: ask the help desk"},
		{"OCI, detail for programs", "application/json", `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required","detail":[{"Type":"repository","Name":"a"}]}]}`, "authentication required"},
		{"OCI, several", "application/json", `{"errors":[{"message":"one"},{"message":"two"},{"message":"one"}]}`, "one; two"},
		{"OCI, not a list", "", `{"errors":{"message":"one"}}`, "one"},
		{"OCI, texts", "", `{"errors":["one","two"]}`, "one; two"},
		{"OCI, no type, and a newline behind", "", "{\"errors\":[{\"message\":\"x\"}]}\n", "x"},
		{"OAuth", "application/json", `{"error":"invalid_grant","error_description":"the refresh token has expired"}`, "the refresh token has expired"},
		{"OAuth, only a code", "application/json", `{"error":"invalid_scope"}`, "invalid_scope"},
		{"Docker Hub's tokens", "application/json", `{"details":"incorrect username or password"}`, "incorrect username or password"},
		{"GitLab", "application/json", `{"message":"403 Forbidden - project is archived"}`, "403 Forbidden - project is archived"},
		{"GitLab, an object", "application/json", `{"message":{"base":["x"],"error":"too many"}}`, "too many"},
		{"Artifactory", "application/json", `{"errors":[{"status":403,"message":"blocked by Xray"}]}`, "blocked by Xray"},
		{"Google", "application/json", `{"error":{"code":403,"message":"Permission denied on project x","status":"PERMISSION_DENIED"}}`, "Permission denied on project x"},
		{"AWS", "application/x-amz-json-1.1", `{"__type":"ThrottlingException","Message":"Rate exceeded"}`, "Rate exceeded"},
		{"Quay", "application/json", `{"detail":"The repository is gone","error_message":"not found","error_type":"x","title":"t"}`, "not found: The repository is gone"},
		{"RFC 9457", "application/problem+json", `{"title":"No credit left","detail":"buy some","status":403}`, "No credit left: buy some"},
		{"S3", "application/xml", `<?xml version="1.0" encoding="UTF-8"?>` + "\n<Error><Code>AccessDenied</Code><Message>Request has expired</Message><AWSAccessKeyId>AKIA</AWSAccessKeyId></Error>", "Request has expired"},
		{"Azure", "application/xml", "\ufeff<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>AuthenticationFailed</Code><Message>Server failed to authenticate.\nRequestId:1\nTime:2</Message></Error>", "Server failed to authenticate"},
		{"S3, only a code", "", `<Error><Code>SlowDown</Code></Error>`, "SlowDown"},
		{"other XML", "text/xml", `<feed><Message>x</Message></feed>`, ""},
		{"plain text", "text/plain; charset=utf-8", "blocked by the firewall\nof this company\n", "blocked by the firewall of this company"},
		{"plain text without a type", "", "no", "no"},
		{"a long text", "text/plain", long, ""},
		{"a long message", "application/json", `{"message":"` + long + `"}`, ""},
		{"no text", "application/octet-stream", "\x00\x01", ""},
		{"a page", "text/html", "<html><head><title>502 Bad\n Gateway &amp; more</title></head><body>" + long + "</body>", `a web page, "502 Bad Gateway & more"`},
		{"a page without a title", "text/html", "<html><body>no</body>", ""},
		{"a page with a heading", "text/html", "<body><h1>You <b>may</b> not</h1>", `a web page, "You may not"`},
		{"text that is called a page", "text/html; charset=utf-8", "locked by the help desk", "locked by the help desk"},
		{"S3 in Latin 1", "text/xml", "<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?><Error><Message>caf\xe9 closed</Message></Error>", "caf\ufffd closed"},
		{"a page that is called something else", "text/plain", "<!DOCTYPE html><title>Log in</title>", `a web page, "Log in"`},
		{"a page that is called JSON", "application/json", "<html><title>Log in</title>", `a web page, "Log in"`},
		{"OCI, one text", "", `{"errors":"no more"}`, "no more"},
		{"JSON cut off in its first word", "application/json", `{"errors":[{"message":"x`, ""},
		{"JSON cut off in a text", "application/json", `{"errors":[{"code":"X","message":"so \"it\" goes o`, `so "it" goes`},
		{"JSON cut off in an escape", "application/json", `{"errors":[{"message":"so it \u00`, "so it"},
		{"JSON cut off behind a text", "application/json", `{"errors":[{"message":"so it goes", `, "so it goes"},
		{"JSON cut off behind an object", "application/json", `{"errors":[{"message":"so it goes"},`, "so it goes"},
		{"JSON cut off in a name", "application/json", `{"errors":[{"message":"so it goes","deta`, ""},
		{"no JSON", "application/json", "{]}\"\\", ""},
		{"JSON of nothing", "application/json", `{}`, ""},
		{"JSON, deep", "application/json", strings.Repeat(`{"errors":[`, 50) + strings.Repeat(`]}`, 50), ""},
		{"empty", "text/plain", " \n", ""},
		{"acts on a terminal", "application/json", `{"message":"\u001b[31mred\u202e\nimgfs: hint: type this"}`, `\x1b[31mred\u202e imgfs: hint: type this`},
		{"a signed URL", "text/plain", "go to https://s3.example/b?X-Amz-Signature=abc", "go to https://s3.example/b"},
		{"a token", "application/json", `{"message":"bad token eyJhbGciOiJSUzI1NiJ9.e30.c2ln"}`, "bad token …"},
	} {
		got := words(tc.contentType, []byte(tc.body), nil)
		switch tc.name {
		case "a long message":
			if len(got) > maxWords+4 || len(got) < 100 || !strings.HasSuffix(got, " …") && !strings.HasSuffix(got, "…") {
				t.Errorf("%s: got %d bytes, %q", tc.name, len(got), got)
			}
		default:
			if got != tc.want {
				t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
			}
		}
		if !printable.Harmless(got) {
			t.Errorf("%s: %q acts", tc.name, got)
		}
	}
}

// What was sent with a request is not told when an answer says it again.
func TestWordsHideWhatWasSent(t *testing.T) {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://h.example/v2/x?X-Amz-Credential=AKIA/x&sig=abcdef&ns=docker.io", nil)
	if err != nil {
		t.Fatal(err)
	}
	basic := base64.StdEncoding.EncodeToString([]byte("someone:pass:word"))
	req.Header.Set("Authorization", "Basic "+basic)
	req.Header.Set("X-Gate", "open-sesame")
	req.Header.Set("Accept", "application/json")
	for text, want := range map[string]string{
		"someone may not, with pass:word":           "someone may not, with …",
		"Authorization was Basic " + basic + ", no": "Authorization was …, no",
		"X-Gate open-sesame, abcdef":                "X-Gate …, …",
		"ns docker.io, application/json":            "ns docker.io, application/json",
	} {
		if got := words("text/plain", []byte(text), secretsOf(req)); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

// What the status says is not said twice.
func TestStatusAndWords(t *testing.T) {
	for said, want := range map[string]string{
		"": "404 Not Found", "Not Found": "404 Not Found", "404 not found": "404 Not Found", `a web page, "404 Not Found"`: "404 Not Found",
		"404 Not Found - the project is archived": "404 Not Found: the project is archived", "Not Found: moved": "404 Not Found: moved",
		"nothing": "404 Not Found: nothing", "Not Foundling": "404 Not Found: Not Foundling",
	} {
		if got := statusFault(404, said).text; got != want {
			t.Errorf("%q: got %q, want %q", said, got, want)
		}
	}
	if got := statusFault(599, "x").text; got != "599: x" {
		t.Errorf("got %q", got)
	}
}

// A server that wants to be left alone for longer than anybody waits has said why.
func TestWordsOfRetryAfter(t *testing.T) {
	h := newHostPool((&Options{ReadTimeout: time.Hour}).withDefaults(), nil).host("h.example")
	h.obey(&http.Response{StatusCode: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"7000"}}}, "log in to raise the limit")
	ctx := context.WithValue(t.Context(), attemptKey{}, &attempt{budget: newRetryBudget((&Options{ReadTimeout: time.Minute}).withDefaults(), false)})
	err := h.waitOpen(ctx)
	if want := "h.example wants no requests for another 30m0s: it answers 429 Too Many Requests: log in to raise the limit"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got error %v, want %q", err, want)
	}
}
