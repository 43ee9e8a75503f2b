package notation

import "fmt"

// Label checks that a name can be one label of a domain name (RFC 1035 §2.3.4), with the underscore that names of
// services and of SRV records have.
func Label(s string) error {
	ok := len(s) >= 1 && len(s) <= 63
	for i := range len(s) {
		c := s[i] | 0x20
		ok = ok && (c >= 'a' && c <= 'z' || s[i] >= '0' && s[i] <= '9' || s[i] == '-' || s[i] == '_')
	}
	if !ok {
		return fmt.Errorf("want letters, digits, - and _, 63 of them at most, have %q", s)
	}
	return nil
}
