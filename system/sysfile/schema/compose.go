package schema

import (
	_ "embed"
	"encoding/json"
	"maps"
	"strings"
	"sync"
)

//go:embed compose.json
var theirs []byte

// Treatment is what becomes of a key of Compose: one of Does, Note and Refused says it, in words that
// fit behind "the key is …".
type Treatment struct {
	Does    string // acted on: what it says
	Note    string // accepted and not acted on: why
	Image   string // with a note: acted on where the service is an image: what it says
	Refused string // why
	// What Compose's own schema leaves open:
	Format   string   // of the value
	Required []string // keys of its long form
}

// Treatments is compose.json: each key by its path, with * for any name or item. What only leads to
// others, as services.* does, is there without a word. It is shared and must not be changed.
func Treatments() map[string]Treatment { return treatments() }

var treatments = sync.OnceValue(func() map[string]Treatment {
	var all map[string]Treatment
	if err := json.Unmarshal(theirs, &all); err != nil {
		panic("schema: compose.json: " + err.Error())
	}
	for key := range maps.Clone(all) {
		for i := strings.LastIndex(key, "."); i > 0; i = strings.LastIndex(key[:i], ".") {
			if _, said := all[key[:i]]; !said {
				all[key[:i]] = Treatment{}
			}
		}
	}
	return all
})

// Treat finds the treatment of a key below the path of another; its own before that of *.
func Treat(above, name string) (as string, t Treatment, known bool) {
	for _, as := range []string{name, "*"} {
		as = strings.TrimPrefix(above+"."+as, ".")
		if t, known = treatments()[as]; known {
			return as, t, true
		}
	}
	return "", Treatment{}, false
}
