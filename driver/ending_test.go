package driver

import (
	"fmt"
	"testing"
)

func TestEnding(t *testing.T) {
	e := &Ending{}
	for n := range 2000 {
		fmt.Fprintf(e, "line %d\r\n\n", n)
	}
	if len(e.kept) > 4<<10 || e.Last() != "line 1999" {
		t.Errorf("%d bytes kept, the last line is %q", len(e.kept), e.Last())
	}
}
