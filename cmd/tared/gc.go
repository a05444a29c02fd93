package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/tare-oci/tare/distribution/server/collect"
	"github.com/tare-oci/tare/distribution/server/config"
	"github.com/tare-oci/tare/internal/getopt"
)

var gcCommand = command{
	name:    "registry gc",
	also:    "gc",
	summary: "Collect the garbage of a registry, which may be serving",
	more: `
Blobs that no manifest of their repository refers to are garbage, and bytes that no repository has. The file's [gc] and [[retention]]
say how old garbage must be and what else is garbage; a registry with an interval in [gc] collects by itself.
`,
	setup: func(set *getopt.Set) func() error {
		path, root := "", ""
		var dryRun, untagged, verbose, asJSON bool
		set.String(&path, "config", 0, "FILE", "configuration in TOML (none)")
		set.String(&root, "root", 0, "DIR", "directory where everything is kept (/var/lib/tared/registry)")
		set.Bool(&dryRun, "dry-run", 'n', "remove nothing, say what would be freed")
		set.Bool(&untagged, "untagged", 0, "manifests that nothing holds are garbage, too")
		set.Bool(&verbose, "verbose", 'v', "name everything that is freed")
		set.Bool(&asJSON, "json", 0, "print JSON lines: one for each thing that is freed, then the sum")
		return func() error {
			c := config.Default()
			if path != "" {
				var err error
				if c, err = config.Load(path); err != nil {
					return err
				}
			}
			if root != "" {
				c.Root = root
			}
			c.GC.Untagged = c.GC.Untagged || untagged
			return gc(c, collect.Options{Policy: policy(c), DryRun: dryRun, Each: printer(verbose, asJSON)}, asJSON)
		}
	},
}

// printer returns what prints each thing that is freed.
func printer(verbose, asJSON bool) func(collect.Freed) {
	switch {
	case asJSON:
		return func(f collect.Freed) { _ = json.NewEncoder(os.Stdout).Encode(f) }
	case verbose:
		return func(f collect.Freed) {
			name := f.Name
			if f.Repository != "" {
				name = f.Repository + " " + name
			}
			fmt.Printf("%s %s: %d bytes\n", f.Kind, name, f.Bytes)
		}
	}
	return nil
}

// gc collects once.
func gc(c *config.Config, opts collect.Options, asJSON bool) error {
	if _, err := os.Stat(c.Root); err != nil && c.S3.Bucket == "" { // opening would make it
		return fmt.Errorf("gc: %w", err)
	}
	store, closeStore, err := openKept(c)
	if err != nil {
		return err
	}
	defer closeStore()
	stop, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	report, err := collect.Run(stop, store, opts)
	if asJSON {
		_ = json.NewEncoder(os.Stdout).Encode(report)
	} else {
		fmt.Println(sum(report, opts.DryRun))
	}
	return err
}

// sum is a report in a line.
func sum(r collect.Report, dryRun bool) string {
	verb := "freed"
	if dryRun {
		verb = "would free"
	}
	return fmt.Sprintf("%s %d bytes: %d blobs, %d manifests, %d uploads; %d tags and %d links removed in %d repositories", verb, r.Bytes,
		r.Count[collect.Blob], r.Count[collect.Manifest], r.Count[collect.Upload], r.Count[collect.Tag], r.Count[collect.Link], r.Repositories)
}

// policy is what the configuration says of garbage.
func policy(c *config.Config) collect.Policy {
	p := collect.Policy{Grace: time.Duration(c.GC.Grace), Uploads: time.Duration(c.GC.Uploads), Untagged: c.GC.Untagged}
	for _, r := range c.Retention {
		p.Retention = append(p.Retention, collect.Rule{Repositories: r.Repositories, Tags: r.Tags, KeepLast: r.KeepLast,
			KeepWithin: time.Duration(r.KeepWithin), KeepTags: r.KeepTags})
	}
	return p
}

// uploadsEvery is how often uploads that stand still are dropped by a registry that collects no other garbage by itself.
const uploadsEvery = time.Hour

// count adds a collection to the metrics.
func (x *registry) count(r collect.Report) {
	if x.watch == nil {
		return
	}
	x.watch.Add("tared_gc_runs_total", 1)
	x.watch.Add("tared_gc_freed_bytes_total", int(min(r.Bytes, math.MaxInt)))
	for kind, n := range r.Count {
		x.watch.Add(fmt.Sprintf("tared_gc_freed_total{kind=%q}", kind), n)
	}
}

// collectBehind collects garbage at the configured interval until stop is done, and closes the returned channel then.
// Unfinished uploads are dropped in any case: clients that die leave them to the registry.
func (x *registry) collectBehind(stop context.Context) <-chan struct{} {
	ended := make(chan struct{})
	if x.config.ReadOnly {
		close(ended)
		return ended
	}
	interval := time.Duration(x.config.GC.Interval)
	run := func() (collect.Report, error) {
		return collect.Run(stop, x.storage, collect.Options{Policy: policy(x.config)})
	}
	if interval <= 0 {
		interval = uploadsEvery
		run = func() (collect.Report, error) {
			return collect.Uploads(stop, x.storage, time.Duration(x.config.GC.Uploads))
		}
	}
	go func() {
		defer close(ended)
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-stop.Done():
				return
			case <-tick.C:
			}
			report, err := run()
			if err != nil && stop.Err() == nil {
				complain(fmt.Errorf("collect garbage: %w", err))
			}
			x.count(report)
			if len(report.Count) > 0 {
				fmt.Fprintln(os.Stderr, "tared: garbage collection "+sum(report, false))
			}
		}
	}()
	return ended
}
