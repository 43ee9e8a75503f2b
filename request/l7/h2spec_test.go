package l7

import (
	"encoding/xml"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// known are the cases of h2spec that net/http's HTTP/2 answers otherwise, each with what it does instead.
var known = map[string]string{
	"http2/6.5.3: Sends multiple values of SETTINGS_INITIAL_WINDOW_SIZE":                                            "one setting twice ends the connection",
	"http2/8.1.2.2: Sends a HEADERS frame that contains the connection-specific header field":                       "400",
	"http2/8.1.2.2: Sends a HEADERS frame that contains the TE header field with any value other than \"trailers\"": "400",
}

// The conformance suite of HTTP/2 and HPACK: https://github.com/summerwind/h2spec.
func TestH2Spec(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 15 seconds")
	}
	f, _ := secured(t)
	f.run("node-1", 1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(strings.Repeat("h", 100))) }))
	host, port, _ := strings.Cut(strings.TrimPrefix(f.door("node-1"), "http://"), ":")
	report := filepath.Join(t.TempDir(), "report.xml")
	out, err := exec.CommandContext(t.Context(), "go", "tool", "-modfile=../../tools.mod", "h2spec", "-h", host, "-p", port, "-t", "-k", "--timeout", "10", "-j", report).CombinedOutput()
	text, missing := os.ReadFile(report)
	if missing != nil && os.Getenv("CI") != "true" && strings.Contains(string(out), "proxy") {
		t.Skipf("h2spec cannot be fetched: %s", out)
	}
	if missing != nil {
		t.Fatalf("h2spec: %v\n%s", err, out)
	}
	var suites struct {
		Suite []struct {
			Case []struct {
				Package string    `xml:"package,attr"`
				Name    string    `xml:"classname,attr"`
				Failure *struct{} `xml:"failure"`
				Error   *struct{} `xml:"error"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal(text, &suites); err != nil {
		t.Fatal(err)
	}
	cases := 0
	for _, s := range suites.Suite {
		for _, c := range s.Case {
			cases++
			if name := c.Package + ": " + c.Name; (c.Failure != nil || c.Error != nil) && known[name] == "" {
				t.Errorf("fails: %s", name)
			}
		}
	}
	if cases < 140 || t.Failed() {
		t.Errorf("%d cases\n%s", cases, out)
	}
}
