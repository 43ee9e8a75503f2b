package route

import (
	"net/netip"
	"testing"
)

// TestClient: the nearest one that is no trusted proxy is the client; what it says itself counts nothing.
func TestClient(t *testing.T) {
	table := &Table{Trust: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8:1::/48"), netip.MustParsePrefix("192.0.2.7/32")}}
	for _, tt := range []struct {
		peer string
		said []string
		want string
	}{
		{"203.0.113.5", nil, "203.0.113.5"},
		{"203.0.113.5", []string{"198.51.100.1"}, "203.0.113.5"}, // forged
		{"10.1.2.3", nil, "10.1.2.3"},
		{"10.1.2.3", []string{"198.51.100.1"}, "198.51.100.1"},
		{"10.1.2.3", []string{"1.1.1.1, 198.51.100.1"}, "198.51.100.1"}, // forged before it came to the proxy
		{"10.1.2.3", []string{"1.1.1.1", "198.51.100.1,10.9.9.9"}, "198.51.100.1"},
		{"10.1.2.3", []string{"10.7.7.7, 192.0.2.7"}, "10.7.7.7"}, // all are trusted: the farthest
		{"::ffff:10.1.2.3", []string{"198.51.100.1"}, "198.51.100.1"},
		{"2001:db8:1::9", []string{"2001:db8:2::1"}, "2001:db8:2::1"},
		{"2001:db8:2::9", []string{"2001:db8:2::1"}, "2001:db8:2::9"},
		{"fe80::1%eth0", []string{"198.51.100.1"}, "fe80::1%eth0"},
		{"127.0.0.1", []string{"198.51.100.1:4711"}, "198.51.100.1"},
		{"127.0.0.1", []string{"[2001:db8:2::1]:80"}, "2001:db8:2::1"},
		{"10.1.2.3", []string{"unknown"}, "10.1.2.3"},
		{"10.1.2.3", []string{"198.51.100.1, "}, "10.1.2.3"},
		{"@", []string{"198.51.100.1"}, "@"},
	} {
		if got := table.Client(tt.peer, tt.said); got != tt.want {
			t.Errorf("from %s, which says %q: %s, want %s", tt.peer, tt.said, got, tt.want)
		}
	}
}

func FuzzClient(f *testing.F) {
	f.Add("10.1.2.3", "1.1.1.1, 198.51.100.1", "x")
	table := &Table{Trust: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	f.Fuzz(func(t *testing.T, peer, a, b string) {
		got := table.Client(peer, []string{a, b})
		if _, err := netip.ParseAddr(got); err != nil && got != peer {
			t.Errorf("%q is no address", got)
		}
		if !table.Trusts(peer) && got != peer {
			t.Errorf("%q is believed: %q", peer, got)
		}
	})
}
