package launch

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"servent/admin"
	"servent/blob"
	"servent/driver"
	"servent/node"
	"servent/system"
)

const (
	slowSync = 10 * time.Millisecond // control syncs every change: beyond this, changes are felt
	lowDisk  = 500 << 20             // bytes
	fullDisk = 1 << 20               // bytes
	fewFiles = 1024                  // open files
)

// Doctor says what this machine can do for a system in the folder, what not, and why.
func Doctor(ctx context.Context, f Folder) []admin.Check {
	checks := []admin.Check{
		{Name: "platform", OK: true, Text: runtime.GOOS + "/" + runtime.GOARCH + ", " + runtime.Version()},
		addresses(), door(), ports(f), files(), disk(f), syncing(f),
	}
	for _, d := range node.Doctored() {
		checks = append(checks, engine(d, d.Probe(ctx))...)
	}
	return append(checks, watched(ctx, f)...)
}

// watched is what the folder's running system says of its nodes: of a fleet, of all machines.
func watched(ctx context.Context, f Folder) (checks []admin.Check) {
	client, err := f.Client()
	if err != nil {
		return nil // it does not run
	}
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	s, err := client.State(ctx)
	if err != nil {
		return []admin.Check{{Name: "system", Text: err.Error(), Next: system.Next(err)}}
	}
	if s.Survives != "" {
		checks = append(checks, admin.Check{Name: "fleet", OK: true, Text: s.Survives})
	}
	for _, n := range s.Nodes {
		for _, a := range n.Alarms {
			checks = append(checks, admin.Check{Name: string(n.Node), Text: a.Text, Alarm: true, Next: alarmNext[a.Kind]})
		}
	}
	return checks
}

const answerWithin = 5 * time.Second // that the running system has to say how it is

// alarmNext is what to do about an alarm.
var alarmNext = map[system.AlarmKind]string{
	system.AlarmClock:   "set both clocks by NTP: timedatectl set-ntp true",
	system.AlarmControl: "servent events, and look what changes so often",
	system.AlarmDisk:    "df -h, and make room",
	system.AlarmSync:    "give the servers a disk of their own, or other machines as servers",
}

func addresses() admin.Check {
	c := admin.Check{Name: "addresses", OK: true, Text: "every emulated node has its own, 127.77.0.1 and on"}
	if !ownAddresses() {
		c.Text = "emulated nodes share 127.0.0.1 and differ by port: this machine answers on no other loopback address"
	}
	return c
}

func door() admin.Check {
	c := admin.Check{Name: "admin door", OK: true, Text: "unix socket, mode 0600, and loopback with a token"}
	if !sockets {
		c.Text = "loopback with a token; a unix socket has no file mode on " + runtime.GOOS
	}
	return c
}

func ports(f Folder) admin.Check {
	c := admin.Check{Name: "ports", OK: true, Text: fmt.Sprintf("room for three nodes between %d and %d", portsFrom, portsUntil)}
	if !f.Free() {
		c.Text = "in use by this folder's running system"
		return c
	}
	k := &kept{PortSlice: minSlice, Index: map[system.NodeID]int{"1": 1, "2": 2, "3": 3}}
	claimed := claims{}
	defer claimed.keep(nil)
	if err := k.choosePorts(claimed); err != nil {
		c.OK, c.Text, c.Next = false, err.Error(), "end what listens there"
	}
	return c
}

func files() admin.Check {
	n := openFiles()
	c := admin.Check{Name: "open files", OK: n >= fewFiles, Text: fmt.Sprintf("%d", n)}
	if n == 0 {
		return admin.Check{Name: "open files", OK: true, Text: "no limit"}
	}
	if !c.OK {
		c.Text, c.Next = fmt.Sprintf("%d; every request takes four", n), "ulimit -n 4096"
	}
	return c
}

// place is the folder, or the nearest one above it that exists.
func place(f Folder) string {
	dir, err := filepath.Abs(string(f))
	if err != nil {
		return "."
	}
	for {
		if _, err := os.Stat(dir); err == nil || dir == filepath.Dir(dir) {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}

func disk(f Folder) admin.Check {
	free, err := blob.Free(place(f))
	if err != nil {
		return admin.Check{Name: "disk", Text: err.Error()}
	}
	c := admin.Check{Name: "disk", OK: free >= lowDisk, Text: fmt.Sprintf("%d MiB free", free>>20)}
	if !c.OK {
		c.Next = "make room, or use another folder"
	}
	return c
}

// Full says that the folder's disk takes next to nothing any more.
func (f Folder) Full() bool {
	free, err := blob.Free(place(f))
	return err == nil && free < fullDisk
}

// syncing measures what an acknowledged change costs: a write that has reached the disk.
func syncing(f Folder) admin.Check {
	c := admin.Check{Name: "sync"}
	file, err := os.CreateTemp(place(f), ".servent-sync-*")
	if err != nil {
		c.Text, c.Next = err.Error(), "make the folder writable"
		return c
	}
	defer os.Remove(file.Name())
	defer file.Close()
	var took []time.Duration
	for range 20 {
		began := time.Now()
		_, err := file.Write(make([]byte, 256))
		if err == nil {
			err = file.Sync()
		}
		if err != nil {
			c.Text = err.Error()
			return c
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	worst := took[len(took)-1]
	c.OK, c.Text = true, fmt.Sprintf("a synced write takes %s, the slowest of 20 took %s", took[len(took)/2].Round(10*time.Microsecond), worst.Round(10*time.Microsecond))
	if worst > slowSync {
		c.Text += "; changes of the plan will be felt (an SD card, a busy disk?)"
	}
	return c
}

// engine says what a driver can do: a line of its own for each thing that it cannot do here.
func engine(d driver.Driver, caps driver.Caps) []admin.Check {
	text := "works"
	if len(caps.Limits) > 0 {
		text += "; limits enforced: " + strings.Join(caps.Limits, ", ")
	}
	checks := []admin.Check{{Name: d.Name(), OK: caps.OK, Text: cmp.Or(caps.Reason, text)}}
	for _, what := range slices.Sorted(maps.Keys(caps.Missing)) {
		checks = append(checks, admin.Check{Name: d.Name() + ": " + what, OK: true, Text: "not on this machine: " + caps.Missing[what]})
	}
	return checks
}

// Preview is what the nodes of a system will say of themselves when it starts here.
func Preview(ctx context.Context, sys *system.System) []system.Seen {
	drivers := map[string]string{}
	for _, d := range node.Doctored() {
		drivers[d.Name()] = ""
		if caps := d.Probe(ctx); !caps.OK {
			drivers[d.Name()] = caps.Reason
		}
	}
	var out []system.Seen
	for _, n := range nodesOf(sys) {
		out = append(out, system.Seen{Node: n.id, Role: "node", Site: n.group.Site, Group: n.group.Name, Emulated: true,
			Capacity: n.group.Capacity, Labels: n.group.Labels, Drivers: drivers})
	}
	return out
}
