package servent

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// floors is a statement of policy: a package imports lower floors only, and a child may import its
// parent. Changing it is a commit of its own, with the reason in RATIONALE.md.
var floors = map[string]int{
	"system":                    0,
	"blob":                      0,
	"identity":                  0,
	"meter":                     0,
	"peer":                      0,
	"peer/keyspace":             0,
	"peer/peertest":             1,
	"placement":                 1,
	"route":                     1,
	"architecture":              1,
	"overlay/ring":              1,
	"overlay/chord":             1,
	"system/notation":           1,
	"system/sysfile":            2,
	"system/sysfile/schema":     2,
	"system/sysfile/edit":       2,
	"link":                      2,
	"control":                   2,
	"control/memory":            2,
	"control/etcd":              2,
	"control/remote":            2,
	"control/controltest":       2,
	"driver":                    2,
	"driver/drivertest":         2,
	"driver/process":            2,
	"driver/container":          2,
	"driver/container/engine":   1,
	"driver/inside":             2,
	"driver/vm":                 2,
	"driver/wasm":               2,
	"peer/wire":                 2,
	"peer/sim":                  2,
	"overlay":                   2,
	"overlay/study":             3,
	"conductor":                 3,
	"agent":                     3,
	"request/h1":                2,
	"request/handover":          3,
	"request/certificate":       3,
	"request/proxy":             2,
	"request/l4":                3,
	"request/l7":                3,
	"store":                     3,
	"store/journal":             2,
	"flow":                      3,
	"schedule":                  3,
	"admin":                     3,
	"fleet":                     3,
	"console":                   3,
	"node":                      4,
	"lab/result":                4,
	"lab/load":                  4,
	"lab/law":                   4,
	"lab/check":                 5,
	"lab/accesslog":             5,
	"lab/host":                  5,
	"lab/trial":                 6,
	"lab/report/figure":         5,
	"launch":                    5,
	"launch/backup":             1,
	"lab":                       6,
	"lab/report":                6,
	"cli":                       7,
	"cmd/servent":               7,
	"examples/increment":        5,
	"examples/counter":          5,
	"examples/address":          5,
	"examples/order":            5,
	"examples/shortener":        5,
	"examples/split":            5,
	"examples/containers":       5,
	"examples/vm/guest":         5,
	"examples/vm/image":         5,
	"examples/tokens":           5,
	"examples":                  6,
	"bench/emulation":           7,
	"bench/kv":                  7,
	"bench/l7":                  7,
	"bench/dns":                 7,
	"bench/fn":                  7,
	"bench/fleet":               7,
	"bench/fn/guest":            0,
	"bench/simulation":          7,
	"bench/sim":                 7,
	"request/dns":               3,
	"cmd/dist":                  7,
	"examples/kinds":            5,
	"examples/functions/thumbs": 5,
	"overlay/kademlia":          1,
	"bench/papers":              7,
	"overlay/pastry":            1,
	"overlay/graph":             1,
	"overlay/cyclon":            1,
	"overlay/unstructured":      1,
}

// exceptions are imports within a floor, from → to, each with its reason.
var exceptions = map[[2]string]string{
	{"placement", "architecture"}:     "placement reads the table of architectures",
	{"route", "architecture"}:         "route reads the table of architectures",
	{"identity", "system"}:            "a name holds a node's ID",
	{"blob", "system"}:                "a blob is named by a digest of the words",
	{"cmd/servent", "cli"}:            "main is one line",
	{"meter", "system"}:               "counters are kept by service and instance",
	{"overlay/chord", "overlay/ring"}: "Chord is a ring whose nodes know members farther away, too",

	{"system/sysfile", "system/sysfile/schema"}: "a file is read against the schema",
	{"system/sysfile", "system/sysfile/edit"}:   "a variant is read as it would be written",
}

// owners says who alone may import a module that must stay behind one package; its children are behind it, too.
var owners = map[string]string{
	"go.etcd.io/etcd/":                       "control/etcd",
	"go.etcd.io/bbolt":                       "store",
	"gonum.org/":                             "lab/law",
	"github.com/robfig/cron":                 "system/notation",
	"github.com/compose-spec/":               "system/sysfile",
	"go.yaml.in/yaml/":                       "system/sysfile",
	"github.com/santhosh-tekuri/":            "system/sysfile",
	"github.com/spf13/cobra":                 "cli",
	"charm.land/lipgloss/":                   "cli",
	"golang.org/x/term":                      "cli",
	"github.com/HdrHistogram/":               "meter",
	"github.com/tetratelabs/":                "driver/wasm",
	"github.com/google/go-containerregistry": "driver/container",
	"github.com/opencontainers/":             "driver/container",
	"github.com/miekg/dns":                   "request/dns",
	"golang.org/x/crypto/acme":               "request/certificate",
}

// pure packages decide: they read no clock, open nothing and start nothing.
var pure = []string{"system", "placement", "route", "architecture", "peer", "peer/keyspace", "overlay/ring", "overlay/chord", "overlay/kademlia", "overlay/pastry", "overlay/cyclon", "overlay/unstructured", "overlay/graph"}

// machines turn events into effects, the same ones for the same events: beside our own words they import
// these alone.
var (
	machines = []string{"peer", "overlay/ring", "overlay/chord", "overlay/kademlia", "overlay/pastry", "overlay/cyclon", "overlay/unstructured"}
	tools    = []string{"bytes", "encoding/binary", "errors", "fmt", "math/bits", "slices"}
)

var impure = map[string][]string{
	"time":         {"Now", "Sleep", "After", "Tick", "NewTimer", "NewTicker", "AfterFunc", "Since", "Until"},
	"math/rand":    nil,
	"math/rand/v2": nil,
	"os":           nil,
	"os/exec":      nil,
	"net":          nil,
	"syscall":      nil,
}

// dialers alone may import net: the link, drivers and public listeners.
var dialers = []string{"link", "driver", "driver/", "request/", "node", "launch", "cli", "admin", "fleet", "control/etcd", "control/remote", "control/controltest", "console", "agent", "examples", "examples/", "bench/", "lab/load"}

func TestLayers(t *testing.T) {
	fset := token.NewFileSet()
	seen := map[string]bool{}
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && file != "." || d.Name() == "testdata" || file == filepath.Join("examples", "shop") || d.Name() == "cmd" && file != "cmd") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		pkg := path.Dir(filepath.ToSlash(file))
		if pkg == "." {
			return nil
		}
		if _, ok := floors[pkg]; !ok {
			t.Errorf("%s: package %s has no floor; give it one in layers_test.go", file, pkg)
			return nil
		}
		seen[pkg] = true
		f, err := parser.ParseFile(fset, file, nil, 0)
		if err != nil {
			return err
		}
		for _, spec := range f.Imports {
			imp, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			checkImport(t, file, pkg, imp)
		}
		if slices.Contains(pure, pkg) {
			checkPure(t, fset, f)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(seen) < 5 {
		t.Fatalf("only %d packages found: the walk is broken", len(seen))
	}
}

func checkImport(t *testing.T, file, pkg, imp string) {
	t.Helper()
	for prefix, owner := range owners {
		if strings.HasPrefix(imp, prefix) && pkg != owner && path.Dir(pkg) != owner {
			t.Errorf("%s: only %s may import %s", file, owner, imp)
		}
	}
	if imp == "net" && !slices.ContainsFunc(dialers, func(d string) bool {
		return pkg == d || strings.HasSuffix(d, "/") && strings.HasPrefix(pkg, d)
	}) {
		t.Errorf("%s: %s must not open sockets; the link does", file, pkg)
	}
	to, ours := strings.CutPrefix(imp, "servent/")
	if !ours {
		if slices.Contains(machines, pkg) && !slices.Contains(tools, imp) {
			t.Errorf("%s: a machine imports %s", file, imp)
		}
		return
	}
	floor, ok := floors[to]
	switch {
	case !ok:
		t.Errorf("%s: imports %s, which has no floor", file, imp)
	case floor < floors[pkg], path.Dir(pkg) == to:
	case exceptions[[2]string{pkg, to}] != "":
	default:
		t.Errorf("%s: %s (floor %d) imports %s (floor %d)", file, pkg, floors[pkg], to, floor)
	}
}

func checkPure(t *testing.T, fset *token.FileSet, f *ast.File) {
	t.Helper()
	names := map[string]string{}
	for _, spec := range f.Imports {
		imp, _ := strconv.Unquote(spec.Path.Value)
		names[path.Base(imp)] = imp
		if funcs, bad := impure[imp]; bad && funcs == nil {
			t.Errorf("%s: a pure package imports %s", fset.Position(spec.Pos()), imp)
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			t.Errorf("%s: a pure package starts a goroutine", fset.Position(n.Pos()))
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && slices.Contains(impure[names[x.Name]], n.Sel.Name) {
				t.Errorf("%s: a pure package calls %s.%s", fset.Position(n.Pos()), x.Name, n.Sel.Name)
			}
		}
		return true
	})
}
