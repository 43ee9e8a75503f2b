package notation

import "testing"

func TestNetwork(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.0/8": "10.0.0.0/8", "192.0.2.7": "192.0.2.7/32", "2001:db8::/32": "2001:db8::/32", "::ffff:192.0.2.7": "192.0.2.7/32",
		"10.0.0.1/8": "", "10.0.0.0/33": "", "": "", "example.org": "", "fe80::1%eth0": "", "10.0.0.0/": "",
	} {
		got, err := Network(text)
		if (err == nil) != (want != "") || err == nil && got.String() != want {
			t.Errorf("Network(%q) = %v, %v; want %q", text, got, err, want)
		}
	}
}
