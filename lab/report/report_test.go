package report

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"servent/lab/result"
)

var update = flag.Bool("update", false, "rewrite the golden files; read their diff")

// cases are the handmade results of testdata. Their figures show the form only.
var cases = []string{"quick", "full", "busy", "partial", "refused", "one", "nofault"}

func load(t *testing.T, name string) *result.Result {
	t.Helper()
	r, err := result.Read(filepath.Join("testdata", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want = bytes.ReplaceAll(want, []byte("\r\n"), []byte("\n"))
	if !bytes.Equal(got, want) {
		g, w := strings.Split(string(got), "\n"), strings.Split(string(want), "\n")
		for i := range g {
			if i >= len(w) || g[i] != w[i] {
				t.Fatalf("%s, line %d: rewrite it with -update when the change is wanted\n got %.300s\nwant %.300s", file, i+1, g[i], append(w, make([]string, len(g))...)[i])
			}
		}
		t.Fatalf("%s has %d lines more", file, len(w)-len(g))
	}
}

var options = Options{Report: ".servent/results/0007/report.html", Longer: "servent compare --full",
	Next: []Next{{"servent apply partitioned", "changes one word in compose.yaml"}}}

func TestTerminal(t *testing.T) {
	for _, name := range cases {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			if err := Terminal(&b, load(t, name), options); err != nil {
				t.Fatal(err)
			}
			golden(t, name+".txt", b.Bytes())
		})
	}
}

func TestHTML(t *testing.T) {
	for _, name := range cases {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			if err := HTML(&b, load(t, name)); err != nil {
				t.Fatal(err)
			}
			golden(t, name+".html", b.Bytes())
		})
	}
}
