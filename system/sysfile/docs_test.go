package sysfile

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"servent/architecture"
	"servent/system"
	"servent/system/sysfile/schema"
)

// samples show each key of a service's x-servent where it may stand; WORD is a word of its enum.
var samples = map[string]string{
	"process":                      "{process: ./a}",
	"process.run":                  "{process: {run: ./a}}",
	"process.build":                "{process: {run: ./a, build: [go, build]}}",
	"process.include":              "{process: {run: ./a, include: [./pages]}}",
	"wasm":                         "{wasm: ./a.wasm}",
	"wasm.module":                  "{wasm: {module: ./a.wasm}}",
	"wasm.build":                   "{wasm: {module: ./a.wasm, build: [go, build]}}",
	"vm":                           "{vm: ./a.qcow2}",
	"vm.disk":                      "{vm: {disk: ./a.qcow2}}",
	"vm.kernel":                    "{vm: {kernel: ./vmlinuz}}",
	"vm.initrd":                    "{vm: {kernel: ./vmlinuz, initrd: ./initrd}}",
	"vm.append":                    "{vm: {kernel: ./vmlinuz, append: quiet}}",
	"vm.user-data":                 "{vm: {disk: ./a.qcow2, user-data: ./user-data}}",
	"vm.port":                      "{vm: {disk: ./a.qcow2, port: 80}}",
	"vm.warm":                      "{vm: {disk: ./a.qcow2, warm: true}}",
	"vm.build":                     "{vm: {kernel: ./vmlinuz, build: [make]}}",
	"files":                        "{files: ./public}",
	"origin":                       "{origin: 'http://127.0.0.1:9000'}",
	"builtin":                      "{builtin: WORD}",
	"on":                           "{process: ./a, switch: {by: request}, on: [{cron: '@hourly', request: POST /}]}",
	"flow":                         "{builtin: flow, flow: [{return: hello}]}",
	"architecture":                 "{process: ./a, architecture: WORD}",
	"topology":                     "{process: ./a, architecture: unstructured, key: '/{key}', topology: WORD}",
	"key":                          "{process: ./a, architecture: replicated, key: '/{key}'}",
	"nokey":                        "{process: ./a, architecture: replicated, key: '/{key}', nokey: WORD}",
	"copies":                       "{builtin: kv, architecture: partitioned, scale: {min: 3}, copies: 3}",
	"read":                         "{builtin: kv, architecture: partitioned, copies: 2, read: WORD}",
	"write":                        "{builtin: kv, architecture: partitioned, copies: 2, write: WORD}",
	"cas":                          "{builtin: kv, architecture: partitioned, cas: true}",
	"idempotent":                   "{process: ./a, architecture: replicated, idempotent: true}",
	"egress":                       "{egress: true}, image: 'nginx:1'",
	"data":                         "{process: ./a, data: hard}",
	"data.kind":                    "{process: ./a, data: {kind: WORD}}",
	"data.path":                    "{process: ./a, data: {path: db}}",
	"data.export":                  "{process: ./a, architecture: partitioned, key: '/{key}', data: {export: 'GET /{key}', import: 'PUT /{key}'}}",
	"data.import":                  "{process: ./a, architecture: partitioned, key: '/{key}', data: {export: 'GET /{key}', import: 'PUT /{key}'}}",
	"switch":                       "{process: ./a, switch: {}}",
	"switch.by":                    "{process: ./a, switch: {by: WORD}}",
	"switch.policy":                "{process: ./a, switch: {policy: WORD}}",
	"switch.sticky":                "{process: ./a, switch: {by: request, sticky: WORD}, key: '/{key}'}",
	"switch.ttl":                   "{process: ./a, switch: {by: name, ttl: 5s}}",
	"switch.proxy":                 "{process: ./a, switch: {by: connection, proxy: WORD}}",
	"switch.model":                 "{process: ./a, switch: {by: request, model: WORD}}",
	"scale":                        "{process: ./a, architecture: replicated, scale: {}}",
	"scale.min":                    "{process: ./a, architecture: replicated, scale: {min: 3}}",
	"scale.max":                    "{process: ./a, architecture: replicated, scale: {max: 3}}",
	"scale.inflight":               "{process: ./a, architecture: function, scale: {inflight: 20}}",
	"scale.latency":                "{process: ./a, architecture: replicated, switch: {by: request}, scale: {min: 1, max: 4, latency: 50ms}}",
	"scale.warm":                   "{process: ./a, architecture: function, scale: {warm: 1h}}",
	"scale.idle":                   "{process: ./a, architecture: function, scale: {idle: 10s}}",
	"scale.cpu":                    "{process: ./a, architecture: replicated, scale: {max: 5, cpu: 70%}}",
	"route":                        "{process: ./a, route: /api/*}",
	"health":                       "{process: ./a, health: {}}",
	"health.http":                  "{process: ./a, health: {http: /healthz}}",
	"health.tcp":                   "{process: ./a, health: {tcp: true}}",
	"health.disable":               "{process: ./a, health: {disable: true}}",
	"health.interval":              "{process: ./a, health: {interval: 1s}}",
	"health.timeout":               "{process: ./a, health: {timeout: 1s}}",
	"health.retries":               "{process: ./a, health: {retries: 1}}",
	"health.start_period":          "{process: ./a, health: {start_period: 1s}}",
	"near":                         "{process: ./a, near: clients}",
	"limits":                       "{process: ./a, limits: {}}",
	"limits.memory":                "{process: ./a, limits: {memory: 64M}}",
	"limits.cpus":                  "{process: ./a, limits: {cpus: 0.5}}",
	"limits.pids":                  "{process: ./a, limits: {pids: 50}}",
	"limits.files":                 "{process: ./a, limits: {files: 50}}",
	"limits.fuel":                  "{wasm: ./a.wasm, limits: {fuel: 5e8}}",
	"limits.timeout":               "{origin: 'http://127.0.0.1:9000', limits: {timeout: 2s}}",
	"limits.output":                "{wasm: ./a.wasm, limits: {output: 1M}}",
	"limits.concurrency":           "{wasm: ./a.wasm, limits: {concurrency: 1}}",
	"cache":                        "{files: ./a, architecture: edge, cache: {}}",
	"cache.size":                   "{files: ./a, architecture: edge, cache: {size: 2G}}",
	"cache.stale-if-error":         "{files: ./a, architecture: edge, cache: {stale-if-error: 24h}}",
	"cache.stale-while-revalidate": "{files: ./a, architecture: edge, cache: {stale-while-revalidate: 1m}}",
}

// topSamples are those of the x-servent at the top of the file.
var topSamples = map[string]string{
	"nodes":                    "{nodes: {eu: }}",
	"nodes.*":                  "{nodes: {eu: }}",
	"nodes.*.count":            "{nodes: {eu: {count: 2}}}",
	"nodes.*.site":             "{nodes: {eu: {site: a}}}",
	"nodes.*.capacity":         "{nodes: {eu: {capacity: {}}}}",
	"nodes.*.capacity.rate":    "{nodes: {eu: {capacity: {rate: 200/s}}}}",
	"nodes.*.capacity.workers": "{nodes: {eu: {capacity: {workers: 2}}}}",
	"nodes.*.capacity.pass":    "{nodes: {eu: {capacity: {pass: 2000/s}}}}",
	"nodes.*.links":            "{nodes: {eu: {links: {}}}}",
	"nodes.*.links.*":          "{nodes: {eu: {links: {us: {}}}, us: }}",
	"nodes.*.links.*.latency":  "{nodes: {eu: {links: {us: {latency: 80ms}}}, us: }}",
	"nodes.*.links.*.rate":     "{nodes: {eu: {links: {us: {rate: 50Mbit}}}, us: }}",
	"nodes.*.labels":           "{nodes: {eu: {labels: {disk: ssd}}}}",
	"nodes.*.price":            "{nodes: {eu: {price: 5 EUR/month}}}",
	"compare":                  "{compare: {}}",
	"compare.service":          "{compare: {service: a}}",
	"compare.variants":         "{compare: {variants: {}}}",
	"compare.variants.*":       "{compare: {variants: {architecture: [single, replicated]}}}",
	"compare.load":             "{compare: {load: {}}}",
	"compare.load.open":        "{compare: {load: {open: 500/s}}}",
	"compare.load.closed":      "{compare: {load: {closed: 16}}}",
	"compare.load.mix":         "{compare: {load: {mix: {}}}}",
	"compare.load.mix.*":       "{compare: {load: {mix: {GET /: 1}}}}",
	"compare.load.keys":        "{compare: {load: {keys: uniform of 10}}}",
	"compare.check":            "{compare: {check: WORD}}",
	"compare.load.send":        "{compare: {load: {send: '41'}}}",
	"compare.load.expect":      "{compare: {load: {expect: line}}}",
	"compare.load.preload":     "{compare: {load: {preload: true}}}",
	"compare.load.resolvers":   "{compare: {load: {resolvers: 4}}}",
	"compare.load.from":        "{compare: {load: {from: {}}}}",
	"compare.load.from.*":      "{compare: {load: {from: {local: 100%}}}}",
	"compare.goal":             "{compare: {goal: {}}}",
	"compare.goal.p50":         "{compare: {goal: {p50: 1s}}}",
	"compare.goal.p90":         "{compare: {goal: {p90: 1s}}}",
	"compare.goal.p99":         "{compare: {goal: {p99: 1s}}}",
	"compare.goal.errors":      "{compare: {goal: {errors: 0.1%}}}",
	"compare.goal.survive":     "{compare: {goal: {survive: 1 node}}}",
	"web":                      "{web: {}}",
	"web.http":                 "{web: {http: 8080}}",
	"web.https":                "{web: {https: 0.0.0.0:443}}",
	"web.redirect":             "{web: {https: 8443, redirect: true}}",
	"web.proxy":                "{web: {trust: [192.0.2.7], proxy: true}}",
	"web.trust":                "{web: {trust: [10.0.0.0/8, 192.0.2.7]}}",
	"web.certificates":         "{web: {https: 8443, certificates: [{cert: shop.pem, key: shop.key}]}}",
	"web.acme":                 "{web: {https: 8443, acme: {}}}",
	"web.acme.directory":       "{web: {https: 8443, acme: {directory: 'https://127.0.0.1:14000/dir'}}}",
	"web.acme.email":           "{web: {https: 8443, acme: {email: ops@example.org}}}",
	"web.acme.trust":           "{web: {https: 8443, acme: {trust: pebble.pem}}}",
}

// documented is a key of x-servent as docs/file.md shows it.
type documented struct {
	key  string
	rule *schema.Rule
	node map[string]any // of the schema
}

// document is the schema as a tree of JSON values.
func document(t *testing.T) (root map[string]any) {
	t.Helper()
	if err := json.Unmarshal(schema.JSON(), &root); err != nil {
		t.Fatal(err)
	}
	return root
}

// resolved is what a node of the schema refers to, or the node itself.
func resolved(root, node map[string]any) map[string]any {
	if ref, ok := node["$ref"].(string); ok {
		return root["$defs"].(map[string]any)[strings.TrimPrefix(ref, "#/$defs/")].(map[string]any)
	}
	return node
}

func oneOf(node map[string]any) []any {
	all, _ := node["oneOf"].([]any)
	return all
}

// documentedKeys are all keys below a definition of x-servent.json, as they stand there.
func documentedKeys(defs map[string]any, node map[string]any, r *schema.Rule, above string) (all []documented) {
	root := map[string]any{"$defs": defs}
	if above != "" {
		all = append(all, documented{above, r, node})
	}
	node = resolved(root, node)
	for _, choice := range oneOf(node) {
		if sub := resolved(root, choice.(map[string]any)); sub["properties"] != nil {
			node = sub
		}
	}
	below := func(name string) string { return strings.TrimPrefix(above+"."+name, ".") }
	props, _ := node["properties"].(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(props)) {
		all = append(all, documentedKeys(defs, props[name].(map[string]any), r.At(name), below(name))...)
	}
	forms, _ := node["patternProperties"].(map[string]any)
	for _, form := range forms {
		if above != "nodes.*.labels" { // of any name
			all = append(all, documentedKeys(defs, form.(map[string]any), r.At("x"), below("*"))...)
		}
	}
	return all
}

// today says what becomes of a sample: refused as not built, noted as not acted on, or acted on.
func today(t *testing.T, sample, at string, top bool) string {
	t.Helper()
	text := "services: {a: {x-servent: " + sample + "}}\n"
	where := "services.a.x-servent." + at
	if top {
		text = "services: {a: {x-servent: {process: ./a, route: shop.example.org/*}}}\nx-servent: " + sample + "\n"
		where = "x-servent." + at
	}
	res, err := load(t, text, Options{})
	if err != nil {
		if !strings.Contains(err.Error(), "not built yet") {
			t.Errorf("the sample of %s is wrong: %v", at, err)
		}
		if _, err := load(t, text, Options{AllowUnbuilt: true}); err != nil {
			t.Errorf("the sample of %s is wrong: %v", at, err)
		}
		return "later"
	}
	for _, n := range res.Notes {
		if strings.ReplaceAll(where, ".*", ".eu") == n.Path {
			return "noted"
		}
	}
	return "yes"
}

// values says in words what may stand at a key, and what becomes of it; of an enum, which words run today.
func values(t *testing.T, r *schema.Rule, sample, at string, top bool) (words, how string) {
	t.Helper()
	var kinds []string
	if !strings.Contains(sample, "WORD") {
		how = today(t, sample, at, top)
	}
	for _, c := range r.Leaves() {
		switch {
		case len(c.Words) > 0:
			var now, later []string
			for _, word := range c.Words {
				filled := strings.ReplaceAll(sample, "WORD", word)
				if word == "flow" { // a flow without steps is none
					filled = "{builtin: flow, flow: [{return: hello}]}"
				}
				if row, ok := architecture.Of(system.Architecture(word)); ok && row.Key == architecture.Must {
					filled = strings.TrimSuffix(filled, "}") + ", key: '/{key}'}"
				} else if word == "swarm" {
					filled = strings.ReplaceAll(filled, "process:", "files:")
				}
				if is := today(t, filled, at, top); is == "later" {
					later = append(later, "`"+word+"`")
				} else {
					now, how = append(now, "`"+word+"`"), is
				}
			}
			words := strings.Join(now, ", ")
			if len(later) > 0 {
				words = strings.TrimPrefix(words+"; later: "+strings.Join(later, ", "), "; ")
			}
			kinds = append(kinds, words)
		case schema.Format(c.Format) != nil:
			err := schema.Format(c.Format)("\x00")
			want, _, ok := strings.Cut(strings.TrimPrefix(err.Error(), "want "), ", have ")
			if !ok {
				t.Errorf("%s: %v does not say what it wants", at, err)
			}
			if c.Min != nil && c.Max != nil {
				want += fmt.Sprintf(", %v to %v", *c.Min, *c.Max)
			} else if c.Min != nil && *c.Min > 0 {
				want += fmt.Sprintf(", %v or more", *c.Min)
			}
			kinds = append(kinds, want)
		default:
			kinds = append(kinds, c.Want())
		}
	}
	return strings.ReplaceAll(strings.Join(slices.Compact(kinds), ", or "), "|", "\\|"), cmp.Or(how, "later")
}

// reference is one table of docs/file.md.
func reference(t *testing.T, word string, samples map[string]string, top bool) string {
	t.Helper()
	root := document(t)
	defs := root["$defs"].(map[string]any)
	r := schema.Rules().At("services", "a", "x-servent")
	if top {
		r = schema.Rules().At("x-servent")
	}
	var b strings.Builder
	b.WriteString("| Key | Value | Meaning | Today |\n|---|---|---|---|\n")
	known := map[string]bool{}
	for _, k := range documentedKeys(defs, defs[word].(map[string]any), r, "") {
		known[k.key] = true
		sample, ok := samples[k.key]
		if !ok {
			t.Errorf("%s has no sample", k.key)
			continue
		}
		meaning, _ := k.node["description"].(string)
		if meaning == "" {
			meaning, _ = resolved(root, k.node)["description"].(string)
		}
		if meaning == "" {
			t.Errorf("%s has no description in x-servent.json", k.key)
		}
		words, how := values(t, k.rule, sample, k.key, top)
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", k.key, words, meaning, how)
	}
	for key := range samples {
		if !known[key] {
			t.Errorf("a sample of %s, which is no key", key)
		}
	}
	return b.String()
}

// treated is the table of Compose's keys with one kind of treatment.
func treated(head string, words func(schema.Treatment) string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "| Key | %s |\n|---|---|\n", head)
	for _, key := range slices.Sorted(maps.Keys(schema.Treatments())) {
		if say := words(schema.Treatments()[key]); say != "" {
			fmt.Fprintf(&b, "| `%s` | %s |\n", key, strings.ReplaceAll(say, "<NAME>", "`<NAME>`"))
		}
	}
	return b.String()
}

// The tables of docs/file.md are written from the schema, from compose.json and from what Load does
// with a sample of every key: go test -update puts them into the file.
func TestDocs(t *testing.T) {
	file := filepath.Join("..", "..", "docs", "file.md")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	got := string(text)
	for name, table := range map[string]string{
		"service": reference(t, "servent_service", samples, false),
		"system":  reference(t, "servent_system", topSamples, true),
		"does":    treated("What Servent does", func(t schema.Treatment) string { return t.Does }),
		"noted": treated("Why it is not acted on", func(t schema.Treatment) string {
			if t.Image != "" {
				return t.Note + "; of an image: " + t.Image
			}
			return t.Note
		}),
		"refused": treated("Why", func(t schema.Treatment) string { return t.Refused }),
	} {
		before, rest, ok := strings.Cut(got, "<!-- "+name+" -->\n")
		_, after, ends := strings.Cut(rest, "<!-- end -->")
		if !ok || !ends {
			t.Fatalf("%s has no place <!-- %s --> … <!-- end -->", file, name)
		}
		got = before + "<!-- " + name + " -->\n" + table + "<!-- end -->" + after
	}
	golden(t, file, got)
	_, example, _ := strings.Cut(got, "```yaml\n")
	example, _, _ = strings.Cut(example, "```")
	if res, err := load(t, example, Options{}); err != nil || len(res.System.Services) != 3 || len(res.Notes) > 0 {
		t.Errorf("the example of %s: %v, %+v", file, err, res)
	}
}

// Every note of compose.json is made by Load where its key stands.
func TestEveryNoteIsSaid(t *testing.T) {
	for key, tr := range schema.Treatments() {
		if tr.Note == "" || key == "services.*.ulimits.*" {
			continue
		}
		keys := strings.Split(strings.ReplaceAll(key, "services.*", "services.a"), ".")
		doc := fill(schema.Rules(), keys)
		if strings.HasPrefix(key, "services.*.build.") {
			within(doc, "services", "a", "build")["context"] = "."
		} else {
			within(doc, "services", "a")["x-servent"] = map[string]any{"process": "./a"}
		}
		within(doc, "configs", "x")["environment"] = "HOME"
		within(doc, "secrets", "x")["environment"] = "HOME"
		text := indented(t, doc)
		res, err := load(t, text, Options{})
		if err != nil {
			var ps system.Problems
			if !errors.As(err, &ps) || !strings.Contains(err.Error(), "no service") {
				t.Errorf("%s: %v in\n%s", key, err, text)
			}
			continue
		}
		want := "not acted on: " + tr.Note
		if !slices.ContainsFunc(res.Notes, func(n system.Problem) bool { return n.Msg == want && strings.HasSuffix(n.Path, keys[len(keys)-1]) }) {
			t.Errorf("%s is not noted in\n%s\nnotes: %v", key, text, res.Notes)
		}
	}
}

// within goes down a document, and makes the mappings that are missing.
func within(doc any, keys ...string) map[string]any {
	for _, key := range keys {
		m := doc.(map[string]any)
		if m[key] == nil {
			m[key] = map[string]any{}
		}
		doc = m[key]
	}
	return doc.(map[string]any)
}

// fill makes the least value of a rule that has the keys.
func fill(r *schema.Rule, keys []string) any {
	for _, leaf := range r.Leaves() {
		if len(keys) > 0 && keys[0] == "*" && leaf.Items != nil {
			return []any{fill(leaf.Items, keys[1:])}
		}
		name, sub := "", (*schema.Rule)(nil)
		if len(keys) > 0 {
			name = strings.ReplaceAll(keys[0], "*", "x")
			sub = leaf.At(name)
		}
		if len(keys) > 0 && (sub == nil || !slices.Contains(leaf.Types, "object")) {
			continue
		}
		if len(keys) > 0 || slices.Contains(leaf.Types, "object") {
			m := map[string]any{}
			for _, must := range leaf.Required {
				m[must] = fill(leaf.Props[must], nil)
			}
			if sub != nil {
				m[name] = fill(sub, keys[1:])
			}
			if leaf.Props["source"] != nil && name != "source" && keys != nil {
				m["source"] = "x"
			}
			return m
		}
		switch {
		case len(leaf.Words) > 0:
			return leaf.Words[0]
		case slices.Contains(leaf.Types, "boolean"):
			return true
		case leaf.Format == "compose-duration":
			return "1s"
		case slices.Contains(leaf.Types, "integer"), slices.Contains(leaf.Types, "number"):
			return 1
		case slices.Contains(leaf.Types, "array"):
			return []any{}
		}
	}
	return map[bool]string{true: "x", false: "always"}[r.Pattern == ""]
}
