package report

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/net/html"
	"pgregory.net/rapid"

	"servent/lab/report/figure"
	"servent/lab/result"
	"servent/system"
)

// hostile words try to leave the place that they are written to.
var hostile = []string{"", "single", `</script><script>alert(1)</script>`, `</style><img src=x onerror=alert(1)>`, `"><svg onload=alert(1)>`,
	`' onmouseover='alert(1)`, `]]><!--`, "-->", `=HYPERLINK("http://evil.example")`, "@SUM(1)", "\x1b[2J\x1b]0;gone\x07", "a\nb\r\nc\tz", "\u202Egnp.exe",
	"\x00\xff\xfe", "\uFFFE\uFFFF", "日本語の名前", "e\u0301\u0301\u0301", strings.Repeat("long ", 60), strings.Repeat("W", 300), "url(http://evil.example/x)", "&lt;b&gt; &amp;", "javascript:alert(1)", "🦀"}

var strange = []float64{0, math.Copysign(0, -1), 1, -1, 0.001, 1e-300, 5e-324, 1e15, 1e16, 1e300, math.MaxFloat64, -math.MaxFloat64, math.Inf(1), math.Inf(-1), math.NaN()}

// fill draws any value of a type, so that no field of a result is forgotten.
func fill(t *rapid.T, v reflect.Value, depth int) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(rapid.OneOf(rapid.SampledFrom(hostile), rapid.SampledFrom(words), rapid.String()).Draw(t, "s"))
	case reflect.Float64:
		v.SetFloat(rapid.OneOf(rapid.Float64Range(0, 1000), rapid.Float64Range(0, 1), rapid.SampledFrom(strange)).Draw(t, "f"))
	case reflect.Int, reflect.Int64:
		v.SetInt(rapid.OneOf(rapid.Int64Range(0, 40), rapid.SampledFrom([]int64{-1, math.MinInt64, math.MaxInt64, 1 << 40})).Draw(t, "i"))
	case reflect.Uint64:
		v.SetUint(rapid.Uint64().Draw(t, "u"))
	case reflect.Bool:
		v.SetBool(rapid.Bool().Draw(t, "b"))
	case reflect.Pointer:
		if rapid.Bool().Draw(t, "has") {
			v.Set(reflect.New(v.Type().Elem()))
			fill(t, v.Elem(), depth+1)
		}
	case reflect.Slice:
		n := rapid.IntRange(0, max(1, 5-depth)).Draw(t, "n")
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			fill(t, v.Index(i), depth+1)
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(t, v.Index(i), depth+1)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range rapid.IntRange(0, 3).Draw(t, "n") {
			k, x := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			fill(t, k, depth+1)
			fill(t, x, depth+1)
			v.SetMapIndex(k, x)
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "time"), 0).UTC()))
			return
		}
		for i := range v.NumField() {
			fill(t, v.Field(i), depth+1)
		}
	default:
		t.Fatalf("a result has a %s, which is not drawn here", v.Type())
	}
}

// words that decide what is shown.
var words = []string{"real", "emulated", "simulated", "quick", "full", "WRONG", "right", "unchecked", "winner", "same", "refused", "none", "best", "worse", "typed", "measured",
	"single", "replicated", "ring", "client", "node-1"}

func anyResult(t *rapid.T) *result.Result {
	r := new(result.Result)
	fill(t, reflect.ValueOf(r).Elem(), 0)
	if rapid.Bool().Draw(t, "plausible") { // so that figures are drawn, not only left out
		r.Mode = result.Emulated
		for i := range r.Variants {
			for k := range r.Variants[i].Points {
				p := &r.Variants[i].Points[k]
				p.Mode, p.Nodes = result.Emulated, 1<<k
			}
		}
	}
	return r
}

// TestAnything: whatever is in a result, nothing panics, the page is well-formed XML and HTML, refers to
// nothing outside, runs nothing, and no figure has a coordinate that is not a number.
func TestAnything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := anyResult(t)
		var b bytes.Buffer
		if err := HTML(&b, r); err != nil {
			t.Fatal(err)
		}
		if err := wellFormed(b.Bytes()); err != nil {
			t.Fatal(err)
		}
		for _, o := range []Options{{}, {Color: true, Width: 20, Report: "\x1b[2J", Longer: "l", Next: []Next{{"n", "w"}}}, {Width: 200}} {
			b.Reset()
			if err := Terminal(&b, r, o); err != nil {
				t.Fatal(err)
			}
			if err := calm(b.String(), o.Color); err != nil {
				t.Fatal(err)
			}
		}
		b.Reset()
		if err := CSV(&b, r); err != nil {
			t.Fatal(err)
		}
		if err := spreadsheet(b.Bytes(), r); err != nil {
			t.Fatal(err)
		}
		b.Reset()
		if n, err := Against(&b, r, r, Options{}); n != 0 || err != nil {
			t.Fatalf("against itself: %d worse, %v\n%s", n, err, b.String())
		}
		if _, err := Against(&b, r, anyResult(t), Options{Color: true, Width: 40}); err == nil {
			if err := calm(b.String(), true); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestHostileWords puts each hostile word everywhere at once.
func TestHostileWords(t *testing.T) {
	for _, bad := range hostile {
		t.Run(strconv.QuoteToASCII(figure.Clip(bad, 20)), func(t *testing.T) {
			r := load(t, "full")
			spoil(reflect.ValueOf(r).Elem(), bad)
			r.Mode, r.Depth = result.Emulated, result.Full
			var b bytes.Buffer
			if err := HTML(&b, r); err != nil {
				t.Fatal(err)
			}
			if err := wellFormed(b.Bytes()); err != nil {
				t.Error(err)
			}
			b.Reset()
			if err := Terminal(&b, r, Options{}); err != nil {
				t.Fatal(err)
			}
			if err := calm(b.String(), false); err != nil {
				t.Error(err)
			}
		})
	}
}

// spoil writes a word into every string but modes, on which the points hang.
func spoil(v reflect.Value, word string) {
	switch v.Kind() {
	case reflect.String:
		if v.Type() != reflect.TypeFor[result.Mode]() {
			v.SetString(word)
		}
	case reflect.Pointer:
		if !v.IsNil() {
			spoil(v.Elem(), word)
		}
	case reflect.Slice:
		for i := range v.Len() {
			spoil(v.Index(i), word)
		}
	case reflect.Map:
		if v.Type().Key().Kind() == reflect.String && v.Len() > 0 {
			x := reflect.New(v.Type().Elem()).Elem()
			x.Set(v.MapIndex(v.MapKeys()[0]))
			spoil(x, word)
			v.SetMapIndex(reflect.ValueOf(word).Convert(v.Type().Key()), x)
		}
	case reflect.Struct:
		if v.Type() != reflect.TypeFor[time.Time]() {
			for i := range v.NumField() {
				spoil(v.Field(i), word)
			}
		}
	}
}

var (
	elements   = strings.Fields("html head meta title style body main header section div p span ul li dl dt dd h1 h2 h3 table caption thead tbody tr th td small br b a pre details summary figure figcaption script svg desc g line rect path circle text")
	attributes = strings.Fields("lang charset http-equiv content name class colspan scope title download href type id tabindex aria-hidden aria-labelledby role viewBox width height x y x1 y1 x2 y2 cx cy r d text-anchor transform")
	numbers    = regexp.MustCompile(`^[-0-9. MLZtranslateo()]*$`)
)

// wellFormed parses a page as XML, strictly, and as a browser does, and looks at all that it may hold.
func wellFormed(page []byte) error {
	if !utf8.Valid(page) {
		return errors.New("not UTF-8")
	}
	d := xml.NewDecoder(bytes.NewReader(page))
	asXML, script, styles := 0, false, 0
	for {
		tok, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("not XML: %w", err)
		}
		switch e := tok.(type) {
		case xml.StartElement:
			asXML++
			if err := allowed(e); err != nil {
				return err
			}
			script = e.Name.Local == "script"
			if e.Name.Local == "style" {
				styles++
			}
		case xml.CharData:
			if script {
				if bytes.Contains(e, []byte("<")) || len(e) > 0 && !json.Valid(e) {
					return fmt.Errorf("the embedded result is not JSON: %.80q", e)
				}
			}
		case xml.EndElement:
			script = false
		}
	}
	if styles != 1 {
		return fmt.Errorf("%d style elements, want our own", styles)
	}
	asHTML := 0
	z := html.NewTokenizer(bytes.NewReader(page))
	for {
		switch z.Next() {
		case html.StartTagToken, html.SelfClosingTagToken:
			asHTML++
			continue
		case html.ErrorToken:
			if z.Err() != io.EOF {
				return z.Err()
			}
			if asHTML != asXML {
				return fmt.Errorf("a browser sees %d elements, XML %d", asHTML, asXML)
			}
			return nil
		}
	}
}

func allowed(e xml.StartElement) error {
	if !slices.Contains(elements, e.Name.Local) {
		return fmt.Errorf("element %s", e.Name.Local)
	}
	script := false
	for _, a := range e.Attr {
		name := a.Name.Local
		switch {
		case a.Name.Space != "" || !slices.Contains(attributes, name):
			return fmt.Errorf("%s has attribute %s", e.Name.Local, name)
		case name == "href" && !strings.HasPrefix(a.Value, "data:text/csv;"):
			return fmt.Errorf("a link to %.60q", a.Value)
		case name == "type":
			script = a.Value == "application/json"
		case slices.Contains(strings.Fields("x y x1 y1 x2 y2 cx cy r d transform viewBox width height"), name) && !numbers.MatchString(a.Value):
			return fmt.Errorf("%s has %s=%q", e.Name.Local, name, a.Value)
		}
	}
	if e.Name.Local == "script" && !script {
		return errors.New("a script that runs")
	}
	return nil
}

// calm words neither move the cursor nor turn the writing direction.
func calm(s string, colour bool) error {
	if colour {
		s = regexp.MustCompile("\x1b\\[[0-9;]+m").ReplaceAllString(s, "")
	}
	for _, r := range s {
		if r != '\n' && figure.Clean(string(r)) != string(r) {
			return fmt.Errorf("the terminal gets %q in %.200q", r, s)
		}
	}
	return nil
}

func spreadsheet(text []byte, r *result.Result) error {
	lines, err := csv.NewReader(bytes.NewReader(text)).ReadAll()
	if err != nil {
		return err
	}
	points := 0
	for _, v := range r.Variants {
		points += len(v.Points)
	}
	if len(lines) != points+1 {
		return fmt.Errorf("%d lines for %d points", len(lines), points)
	}
	for _, l := range lines[1:] {
		for i, f := range l {
			if _, err := strconv.ParseFloat(f, 64); err != nil && f != "" && strings.Contains("=+-@", f[:1]) {
				return fmt.Errorf("%s is a formula: %q", csvHead[i], f)
			}
		}
	}
	return nil
}

func FuzzParsed(f *testing.F) {
	for _, name := range []string{"busy", "partial", "refused"} { // small ones: more of them are tried
		r, err := result.Read("testdata/" + name + ".json")
		if err != nil {
			f.Fatal(err)
		}
		text, err := json.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := result.Parse("result.json", text)
		if err != nil {
			return
		}
		var b bytes.Buffer
		if err := HTML(&b, r); err != nil {
			t.Fatal(err)
		}
		if err := wellFormed(b.Bytes()); err != nil {
			t.Fatal(err)
		}
		if err := Terminal(&b, r, Options{}); err != nil {
			t.Fatal(err)
		}
	})
}

func TestEmptyResult(t *testing.T) {
	for _, r := range []*result.Result{{}, {Variants: []result.Variant{{}}}, {Variants: []result.Variant{{Points: []result.Point{{}}, Architecture: system.Ring, Law: &result.Law{}, Theory: &result.Theory{}, Survival: &result.Survival{}}}}} {
		var b bytes.Buffer
		if err := errors.Join(HTML(&b, r), wellFormed(b.Bytes()), Terminal(&b, r, Options{}), CSV(&b, r)); err != nil {
			t.Error(err)
		}
	}
}
