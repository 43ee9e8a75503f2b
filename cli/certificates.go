package cli

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"servent/admin"
	"servent/system"
)

func (e *env) certificatesCmd() *cobra.Command {
	ca := false
	cmd := &cobra.Command{
		Use:   "certificates",
		Short: "List the certificates that the system speaks TLS with",
		Long: "Certificates lists them with the names that they are for, who issued them, and when they end; they are renewed by themselves.\n" +
			"With --ca it prints the certificate of the system's own authority, for clients to trust: curl --cacert ca.pem https://…",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := e.client()
			if err != nil {
				return err
			}
			all, err := client.Certificates(cmd.Context())
			if err != nil {
				return err
			}
			switch {
			case ca && all.CA == "":
				return &system.Hint{Err: errors.New("this system has no authority of its own: nothing is published by TLS"), Next: "write at the top of the file: x-servent: {web: {https: 8443}}"}
			case ca && !e.json:
				fmt.Fprint(e.out, all.CA)
				return nil
			case e.json:
				return e.print(all)
			}
			e.listCertificates(all)
			return nil
		},
	}
	cmd.Flags().BoolVar(&ca, "ca", false, "print the certificate of the system's own authority, in PEM")
	return cmd
}

func (e *env) listCertificates(all admin.Certificates) {
	rows := [][]string{{"CERTIFICATE", "ISSUER", "ENDS", "FOR"}}
	for _, c := range all.Certificates {
		ends := "-"
		if !c.Until.IsZero() {
			ends = c.Until.Local().Format(time.DateOnly)
		}
		rows = append(rows, []string{c.Name, orDash(c.Issuer), ends, orDash(strings.Join(c.Hosts, " "))})
	}
	table(e.out, rows)
	for _, c := range all.Certificates {
		if c.Failed != "" {
			fmt.Fprintf(e.out, "%s: %s; next try %s\n", c.Name, strings.ReplaceAll(c.Failed, "\n", "; "), c.Again.Local().Format(time.TimeOnly))
		}
	}
}
