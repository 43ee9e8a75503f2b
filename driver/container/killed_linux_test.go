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
	"servent/system"
)

const asNode = "SERVENT_CONTAINER_TEST" // blobs, state, image: this process is a node that starts one instance

func TestMain(m *testing.M) {
	if at := strings.Split(os.Getenv(asNode), "\n"); len(at) == 3 {
		d := New(Options{Blobs: at[0], StateDir: at[1]})
		p, err := d.Prepare(context.Background(), driver.Artifact{Software: system.Software{Kind: system.Image, From: "oci:./image"}, Dir: at[2]})
		if err == nil {
			var i driver.Instance
			if i, err = p.Start(context.Background(), driver.Spec{Instance: "web/1", Host: "127.0.0.1", Dir: at[1]}); err == nil {
				fmt.Println(i.(*instance).pid, i.ID())
				<-i.Wait()
			}
		}
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// A node that is killed takes its containers with it, and their mounts and cgroups.
func TestKilledNode(t *testing.T) {
	d := engine(t)
	image := onDisk(t, probeImage(t, v1.Config{}), nil)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), asNode+"="+d.opts.Blobs+"\n"+d.opts.StateDir+"\n"+image.Dir)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(out).ReadString('\n')
	first, id, _ := strings.Cut(strings.TrimSpace(line), " ")
	pid, err := strconv.Atoi(first)
	if err != nil {
		t.Fatalf("the node says %q", line)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
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
