package main

import (
	"fmt"
	"os"

	"github.com/BurntSushi/toml"

	"github.com/tare-oci/tare/distribution/server/config"
	"github.com/tare-oci/tare/internal/getopt"
)

var registryCommand = command{
	name:    "registry",
	summary: "Serve images by the distribution-spec",
	more: `
An option wins over the same key of the file. Without users (--htpasswd, or [auth] in the file) everybody who reaches the address
may do everything. SIGTERM ends the registry when what is under way is finished; SIGHUP makes it read the permissions of the file
again, and open the access log anew. docs/registry.md has all keys of the file.
`,
	setup: func(set *getopt.Set) func() error {
		load := configOptions(set)
		check := false
		set.Bool(&check, "check", 0, "check the configuration, print it without its secrets, and end")
		return func() error {
			c, err := load()
			if err != nil {
				return err
			}
			if check {
				return toml.NewEncoder(os.Stdout).Encode(c)
			}
			return serve(c, load)
		}
	},
}

// configOptions adds the options that name the configuration and change it, and returns what reads it.
func configOptions(set *getopt.Set) func() (*config.Config, error) {
	path := ""
	var changes []func(*config.Config)
	text := func(long, arg, help string, field func(*config.Config) *string) {
		set.Func(long, 0, arg, help, func(v string) error {
			changes = append(changes, func(c *config.Config) { *field(c) = v })
			return nil
		})
	}
	set.String(&path, "config", 0, "FILE", "configuration in TOML (none)")
	text("listen", "ADDR", "address and port (127.0.0.1:5000)", func(c *config.Config) *string { return &c.Listen })
	text("root", "DIR", "directory where everything is kept (/var/lib/tared/registry)", func(c *config.Config) *string { return &c.Root })
	text("htpasswd", "FILE", "users with their passwords, hashed by bcrypt", func(c *config.Config) *string { return &c.Auth.Htpasswd })
	text("tls-cert", "FILE", "certificate in PEM, with what signed it", func(c *config.Config) *string { return &c.TLS.Certificate })
	text("tls-key", "FILE", "its key in PEM", func(c *config.Config) *string { return &c.TLS.Key })
	text("url", "URL", "how clients call the registry, if not by the address", func(c *config.Config) *string { return &c.URL })
	text("access-log", "FILE", "where each request is written; - is standard output (off)", func(c *config.Config) *string { return &c.Log.Access })
	text("metrics", "ADDR", "address and port of the metrics for Prometheus", func(c *config.Config) *string { return &c.Metrics.Listen })
	changes = append(changes, switches(set)...)
	return func() (*config.Config, error) {
		c := config.Default()
		if path != "" {
			var err error
			if c, err = config.Load(path); err != nil {
				return nil, err
			}
		}
		for _, change := range changes {
			change(c)
		}
		if err := c.Check(); err != nil {
			return nil, fmt.Errorf("options: %w", err)
		}
		return c, nil
	}
}

// switches adds the options that are on or off.
func switches(set *getopt.Set) []func(*config.Config) {
	readOnly, noDelete, noWeb := false, false, false
	set.Bool(&readOnly, "read-only", 0, "refuse every change")
	set.Bool(&noDelete, "no-delete", 0, "refuse to delete manifests, tags and blobs")
	set.Bool(&noWeb, "no-web", 0, "have no page at /")
	return []func(*config.Config){func(c *config.Config) {
		c.ReadOnly = c.ReadOnly || readOnly
		c.Delete = c.Delete && !noDelete
		c.Web.Enabled = c.Web.Enabled && !noWeb
	}}
}
