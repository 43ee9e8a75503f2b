package system

import (
	"math"
	"slices"
	"testing"
)

func TestPlaces(t *testing.T) {
	r := Places{{"a/1", 10}, {"a/2", 100}, {"a/3", 1000}}
	for at, want := range map[uint64]InstanceID{0: "a/1", 10: "a/1", 11: "a/2", 100: "a/2", 101: "a/3", 1000: "a/3", 1001: "a/1", math.MaxUint64: "a/1"} {
		if got := r.Of(at); got != want {
			t.Errorf("Of(%d) = %s, want %s", at, got, want)
		}
	}
	for _, tt := range []struct {
		first, last uint64
		want        []InstanceID
	}{
		{0, 5, []InstanceID{"a/1"}},
		{0, 10, []InstanceID{"a/1"}},
		{5, 50, []InstanceID{"a/1", "a/2"}},
		{11, 100, []InstanceID{"a/2"}},
		{5, 500, []InstanceID{"a/1", "a/2", "a/3"}},
		{500, 2000, []InstanceID{"a/3", "a/1"}},
		{2000, math.MaxUint64, []InstanceID{"a/1"}},
	} {
		if got := r.Between(tt.first, tt.last); !slices.Equal(got, tt.want) {
			t.Errorf("Between(%d, %d) = %v, want %v", tt.first, tt.last, got, tt.want)
		}
	}
	if got := r.Share("a/2"); math.Abs(got*(1<<64)-90) > 1e-9 {
		t.Errorf("Share = %v, want 90 of the circle's places", got)
	}
	if (Places{}).Of(5) != "" || (Places{{"a/1", 7}}).Share("a/1") < 0.999 {
		t.Error("nobody owns something of an empty ring, or one alone does not own all")
	}
}
