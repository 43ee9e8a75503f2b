package notation

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// Template is text with values in braces, as /reserve/{input.item} or {stock.places.0}. A brace that is meant as one stands twice: {{ and }}.
type Template struct{ parts []part }

// part is text, or a reference when ref is not empty.
type part struct {
	text string
	ref  []string
}

// ParseTemplate reads a template.
func ParseTemplate(s string) (Template, error) {
	var t Template
	var text strings.Builder
	flush := func() {
		if text.Len() > 0 {
			t.parts = append(t.parts, part{text: text.String()})
			text.Reset()
		}
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case (c == '{' || c == '}') && i+1 < len(s) && s[i+1] == c:
			text.WriteByte(c)
			i++
		case c == '}':
			return Template{}, fmt.Errorf("template %q: a } without its {; one that is meant as such stands twice", s)
		case c == '{':
			end := strings.IndexByte(s[i:], '}')
			if end < 0 {
				return Template{}, fmt.Errorf("template %q: a { without its }; one that is meant as such stands twice", s)
			}
			ref, err := parseRef(s[i+1 : i+end])
			if err != nil {
				return Template{}, fmt.Errorf("template %q: %w", s, err)
			}
			flush()
			t.parts = append(t.parts, part{ref: ref})
			i += end
		default:
			text.WriteByte(c)
		}
	}
	flush()
	return t, nil
}

// parseRef reads a value's name and the way into it: names and list places with dots between.
func parseRef(s string) ([]string, error) {
	ref := strings.Split(s, ".")
	for _, word := range ref {
		if word == "" || strings.Trim(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") != "" {
			return nil, fmt.Errorf("want a value like {input.item} or {list.0}, have {%s}", s)
		}
	}
	return ref, nil
}

// Values are the names of the values that the template needs.
func (t Template) Values() []string {
	var names []string
	for _, p := range t.parts {
		if len(p.ref) > 0 {
			names = append(names, p.ref[0])
		}
	}
	return names
}

// Value fills the template. One that is a single reference gives the value as it is, any other text.
func (t Template) Value(values map[string]any) (any, error) {
	if len(t.parts) == 1 && len(t.parts[0].ref) > 0 {
		return find(values, t.parts[0].ref)
	}
	return t.Text(values, nil)
}

// Text fills the template with text; escape, if not nil, is applied to every value.
func (t Template) Text(values map[string]any, escape func(string) string) (string, error) {
	var b strings.Builder
	for _, p := range t.parts {
		if len(p.ref) == 0 {
			b.WriteString(p.text)
			continue
		}
		v, err := find(values, p.ref)
		if err != nil {
			return "", err
		}
		text, err := asText(v)
		if err != nil {
			return "", fmt.Errorf("{%s}: %w", strings.Join(p.ref, "."), err)
		}
		if escape != nil {
			text = escape(text)
		}
		b.WriteString(text)
	}
	return b.String(), nil
}

// find goes into a value of JSON.
func find(values map[string]any, ref []string) (any, error) {
	var at any = values
	for i, word := range ref {
		var ok bool
		switch v := at.(type) {
		case map[string]any:
			at, ok = v[word]
		case []any:
			n, err := strconv.Atoi(word)
			if ok = err == nil && n >= 0 && n < len(v); ok {
				at = v[n]
			}
		}
		if !ok {
			return nil, fmt.Errorf("{%s}: there is no %s", strings.Join(ref, "."), strings.Join(ref[:i+1], "."))
		}
	}
	return at, nil
}

// asText writes a value of JSON as it stands in text: a string without its quotes, a list or an object as JSON.
func asText(v any) (string, error) {
	if s, ok := v.(string); ok {
		return s, nil
	}
	b, err := json.Marshal(v)
	return string(b), err
}

// Fill fills all strings in a value of JSON that are templates.
func Fill(v any, values map[string]any) (any, error) {
	switch v := v.(type) {
	case string:
		t, err := ParseTemplate(v)
		if err != nil {
			return nil, err
		}
		return t.Value(values)
	case []any:
		out := make([]any, len(v))
		for i, one := range v {
			var err error
			if out[i], err = Fill(one, values); err != nil {
				return nil, err
			}
		}
		return out, nil
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, one := range v {
			var err error
			if out[k], err = Fill(one, values); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	return v, nil
}
