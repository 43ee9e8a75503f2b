package admin

import (
	"context"
	"net/http"

	"servent/system"
)

// Certificates are what the system speaks TLS with.
type Certificates struct {
	CA           string             `json:"ca"`           // of the system's own authority, in PEM; empty: it has none
	Certificates []system.Certified `json:"certificates"` // without what is sealed
}

func (d *Door) certificates(w http.ResponseWriter, _ *http.Request) error {
	out := Certificates{Certificates: []system.Certified{}}
	if d.Machines != nil {
		ca, err := d.Machines.CA()
		if err != nil {
			return err
		}
		out.CA = string(ca)
	}
	view, _ := d.View()
	for _, c := range view.Certificates {
		c.Sealed = nil
		out.Certificates = append(out.Certificates, c)
	}
	return answer(w, out)
}

// Certificates are what the system speaks TLS with.
func (c *Client) Certificates(ctx context.Context) (out Certificates, err error) {
	return out, c.do(ctx, http.MethodGet, "/v1/certificates", nil, &out)
}
