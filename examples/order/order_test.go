package order

import (
	"net/http/httptest"
	"strings"
	"testing"
)

func TestServices(t *testing.T) {
	for _, tt := range []struct {
		role string
		asks []string // METHOD PATH BODY KEY → STATUS and a part of the answer
	}{
		{"stock", []string{
			`POST /take/lamp {"n":2} k1 → 200 "id":"1"`, `POST /take/lamp {"n":2} k1 → 200 "id":"1"`, `GET /left/lamp - - → 200 {"left":98}`,
			`POST /take/lamp {"n":99} k2 → 409 only 98 of lamp left`, `DELETE /1 - - → 200 "id":"1"`, `DELETE /1 - - → 200 "id":"1"`, `GET /left/lamp - - → 200 {"left":100}`,
			`DELETE /9 - - → 404 nothing`, `POST /take/lamp {"n":0} - → 400 want`, `POST /take/lamp x - → 400 want`,
			`POST /take/lamp {"n":1} - → 200 "id":"2"`, `POST /take/lamp {"n":1} - → 200 "id":"3"`,
		}},
		{"payment", []string{`POST /charge/ann {"n":25} k → 200 "n":500`, `POST /charge/ann {"n":1} k2 → 409 only 0 in the purse of ann`}},
		{"shipping", []string{`POST /send/Delft {"n":1} k → 200 "id":"1"`, `POST /send/nowhere {"n":1} k2 → 422 nobody lives there`}},
	} {
		h, err := New(tt.role)
		if err != nil {
			t.Fatal(err)
		}
		for _, ask := range tt.asks {
			line, want, _ := strings.Cut(ask, " → ")
			f := strings.Fields(line)
			r := httptest.NewRequest(f[0], f[1], strings.NewReader(f[2]))
			if f[3] != "-" {
				r.Header.Set("Idempotency-Key", f[3])
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			status, part, _ := strings.Cut(want, " ")
			if got := w.Body.String(); w.Result().Status[:3] != status || !strings.Contains(got, part) {
				t.Errorf("%s: %s: %d %s", tt.role, ask, w.Code, got)
			}
		}
	}
	if _, err := New("cook"); err == nil {
		t.Error("a role that is none was taken")
	}
}
