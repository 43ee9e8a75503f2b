package notation

import (
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"testing"
)

func TestTemplate(t *testing.T) {
	var values map[string]any
	if err := json.Unmarshal([]byte(`{"input": {"item": "a b", "n": 3, "list": [1, {"x": "y"}], "no": null}, "ok": true}`), &values); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ template, want string }{
		{"plain", `"plain"`}, {"{input.n}", `3`}, {"{input.list}", `[1,{"x":"y"}]`}, {"{input.list.1.x}", `"y"`}, {"n={input.n}!", `"n=3!"`},
		{"{input.no}", `null`}, {"{ok}", `true`}, {"{{literal}} {ok}", `"{literal} true"`}, {"list {input.list}", `"list [1,{\"x\":\"y\"}]"`}, {"", `""`},
	} {
		tpl, err := ParseTemplate(tt.template)
		if err != nil {
			t.Errorf("%q: %v", tt.template, err)
			continue
		}
		v, err := tpl.Value(values)
		if b, _ := json.Marshal(v); err != nil || string(b) != tt.want {
			t.Errorf("%q = %s, %v, want %s", tt.template, b, err, tt.want)
		}
	}
	tpl, err := ParseTemplate("/x/{input.item}")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := tpl.Text(values, url.PathEscape); err != nil || got != "/x/a%20b" {
		t.Errorf("escaped %q, %v", got, err)
	}
	if got := tpl.Values(); !slices.Equal(got, []string{"input"}) {
		t.Errorf("values %v", got)
	}
	for _, bad := range []string{"{", "}", "{}", "{a b}", "{a..b}", "{.a}", "a { b"} {
		if _, err := ParseTemplate(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	for _, missing := range []string{"{input.nothing}", "{nobody}", "{input.list.2}", "{input.list.-1}", "{input.item.x}", "{ok.x}"} {
		tpl, err := ParseTemplate(missing)
		if err != nil {
			t.Errorf("%q: %v", missing, err)
		} else if v, err := tpl.Value(values); err == nil || !strings.Contains(err.Error(), "there is no") {
			t.Errorf("%q = %v, %v", missing, v, err)
		}
	}
	filled, err := Fill(map[string]any{"a": []any{"{input.n}", 7.0}, "b": "{input.item}"}, values)
	if b, _ := json.Marshal(filled); err != nil || string(b) != `{"a":[3,7],"b":"a b"}` {
		t.Errorf("filled %s, %v", b, err)
	}
}

func FuzzTemplate(f *testing.F) {
	for _, s := range []string{"{a}", "{{a}}", "x{a.0.b}y", "{", "}}", "{a{b}}"} {
		f.Add(s)
	}
	values := map[string]any{"a": []any{map[string]any{"b": "c"}}}
	f.Fuzz(func(t *testing.T, s string) {
		tpl, err := ParseTemplate(s)
		if err != nil {
			return
		}
		_, _ = tpl.Value(values)
		if len(tpl.Values()) == 0 { // plain text comes back as it went in
			text, err := tpl.Text(nil, nil)
			if err != nil || strings.NewReplacer("{", "{{", "}", "}}").Replace(text) != s {
				t.Errorf("%q became %q, %v", s, text, err)
			}
		}
	})
}
