package route

import (
	"testing"

	"servent/system"
)

func TestWords(t *testing.T) {
	key, err := ParseKey("header:X-User")
	if err != nil {
		t.Fatal(err)
	}
	weighted := instances(2)
	weighted[0].Weight, weighted[1].Weight = 300, 100
	for _, tt := range []struct {
		s    Service
		want string
	}{
		{Service{}, "by request: p2c"},
		{Service{Switch: system.Switch{Policy: "random", Sticky: "none"}}, "by request: random"},
		{Service{Instances: weighted, Switch: system.Switch{Policy: "weighted"}}, "by request: weighted (api/1 75 %, api/2 25 %)"},
		{Service{Instances: instances(2), Switch: system.Switch{Policy: "weighted"}}, "by request: weighted (no capacity is known: all alike)"},
		{Service{Key: key, Switch: system.Switch{Policy: "hash"}}, "by request: hash of header:X-User, else the source"},
		{Service{Switch: system.Switch{Policy: "maglev"}}, "by request: maglev of the source"},
		{Service{Name: "api", Switch: system.Switch{Sticky: "cookie"}}, "by request: p2c; clients stay by cookie servent-api"},
		{Service{Key: key, Switch: system.Switch{Sticky: "key"}}, "by request: p2c; clients stay by key header:X-User"},
		{Service{Switch: system.Switch{Sticky: "source"}}, "by request: p2c; clients stay by source"},
		{Service{Key: key, Locator: FullView{}, Switch: system.Switch{Policy: "hash"}}, "by request: the owner of the key header:X-User"},
	} {
		tt.s.Switch.By = system.ByRequest
		if got := tt.s.Words(); got != tt.want {
			t.Errorf("Words() = %q, want %q", got, tt.want)
		}
	}
}
