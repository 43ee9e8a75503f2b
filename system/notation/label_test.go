package notation

import (
	"strings"
	"testing"
)

func TestLabel(t *testing.T) {
	for name, ok := range map[string]bool{"api": true, "API-2": true, "_tcp": true, strings.Repeat("a", 63): true, "": false, "a.b": false, "a b": false, strings.Repeat("a", 64): false, "\u00fc": false, "a\x00": false} {
		if err := Label(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}
