package system

import (
	"slices"
	"strings"
	"testing"
)

func TestCapabilities(t *testing.T) {
	without := func(names ...string) []string {
		all := slices.DeleteFunc(slices.Clone(defaultCapabilities), func(n string) bool { return slices.Contains(names, n) })
		slices.Sort(all)
		return all
	}
	for _, tt := range []struct {
		name      string
		add, drop []string
		want      []string
	}{
		{"nothing said", nil, nil, without()},
		{"one less", nil, []string{"net_raw", "CAP_MKNOD"}, without("CAP_NET_RAW", "CAP_MKNOD")},
		{"a dangerous one less", nil, []string{"SYS_ADMIN"}, without()},
		{"none", nil, []string{"ALL"}, nil},
		{"one alone", []string{"NET_BIND_SERVICE"}, []string{"all"}, []string{"CAP_NET_BIND_SERVICE"}},
		{"added and dropped", []string{"IPC_LOCK"}, []string{"IPC_LOCK"}, without()},
		{"twice", []string{"KILL", "cap_kill"}, nil, without()},
	} {
		c := &Container{CapAdd: tt.add, CapDrop: tt.drop}
		if got, err := c.Capabilities(); err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, %v, want %v", tt.name, got, err, tt.want)
		}
	}
	for word, want := range map[string]string{"SYS_ADMIN": "not given to a container", "all": "not given", "cap_sys_module": "kernel", "FLY": "no capability", "": "no capability"} {
		c := &Container{CapAdd: []string{word}}
		if _, err := c.Capabilities(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("cap_add %q: %v, want %q", word, err, want)
		}
	}
}
