package container

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"servent/driver"
	"servent/driver/container/engine"
	"servent/system"
)

const asNode = "SERVENT_CONTAINER_TEST" // blobs, state, image, an engine's socket, the cable: this process is a node that starts one instance

func TestMain(m *testing.M) {
	if at := strings.Split(os.Getenv(asNode), "\n"); len(at) == 5 {
		o := Options{Blobs: at[0], StateDir: at[1]}
		if at[3] != "" {
			o.Engine, o.Self = engine.At(at[3]), []string{at[4]}
		}
		d := New(o)
		p, err := d.Prepare(context.Background(), driver.Artifact{Software: system.Software{Kind: system.Image, From: "oci:./image"}, Dir: at[2]})
		if err == nil {
			var i driver.Instance
			if i, err = p.Start(context.Background(), driver.Spec{Instance: "web/1", Host: "127.0.0.1", Dir: at[1]}); err == nil {
				pid := 0
				if i, ok := i.(*instance); ok {
					pid = i.pid
				}
				fmt.Println(pid, i.ID())
				<-i.Wait()
			}
		}
		fmt.Println(err)
		os.Exit(1)
	}
	code := m.Run()
	for _, s := range sharedEngines {
		s.stop()
	}
	os.Exit(code)
}

// A node that is killed takes its containers with it, and their mounts and cgroups.
func TestKilledNode(t *testing.T) {
	d := newDriver(t)
	first, id := killNode(t, d, "", "")
	pid, err := strconv.Atoi(first)
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); ; {
		_, cgroup := cgroups.file("pids", id, "pids.current", "pids.current")
		if syscall.Kill(pid, 0) == syscall.ESRCH && os.IsNotExist(cgroup) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("20s after its node the container lives, or its cgroup does (%v)", cgroup)
		}
		<-time.After(10 * time.Millisecond)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), d.opts.StateDir) {
		t.Errorf("a mount is left: %v", err)
	}
}

// Another engine knows nothing of the node: its guard ends the container there.
func TestKilledNodeByEngine(t *testing.T) {
	for name := range engines {
		t.Run(name, func(t *testing.T) {
			d := byEngine(t, name)
			_, id := killNode(t, d, d.opts.Engine.Socket(), d.opts.Self[0])
			for end := time.Now().Add(20 * time.Second); ; {
				left, err := d.opts.Engine.List(t.Context(), instanceLabel+"="+id)
				if err == nil && len(left) == 0 {
					break
				}
				if time.Now().After(end) {
					t.Fatalf("20s after its node the engine has %v %v", left, err)
				}
				<-time.After(50 * time.Millisecond)
			}
		})
	}
}

// killNode starts a node with one instance and kills it.
func killNode(t *testing.T, d *Driver, socket, cable string) (pid, id string) {
	t.Helper()
	image := onDisk(t, probeImage(t, v1.Config{}), nil)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), asNode+"="+strings.Join([]string{d.opts.Blobs, d.opts.StateDir, image.Dir, socket, cable}, "\n"))
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(out).ReadString('\n')
	pid, id, ok := strings.Cut(strings.TrimSpace(line), " ")
	if !ok {
		t.Fatalf("the node says %q", line)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	return pid, id
}
