package main

import (
	"strings"
	"testing"
)

// The short form of make check-papers: all tables, with a thousand nodes.
func TestTables(t *testing.T) {
	if testing.Short() {
		t.Skip("some seconds")
	}
	var out strings.Builder
	wrong, err := tables(t.Context(), &out, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range wrong {
		t.Error(w)
	}
	if t.Log(out.String()); strings.Count(out.String(), "\n| ") < 4+3+2+2+1+12+14+7 {
		t.Error("rows are missing")
	}
}
