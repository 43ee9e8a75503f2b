package store

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const childVar = "SERVENT_TEST_STORE_CHILD"

// TestMain is also the child that [TestKill] kills.
func TestMain(m *testing.M) {
	if dir := os.Getenv(childVar); dir != "" {
		child(dir)
		os.Exit(1) // it is killed before
	}
	os.Exit(m.Run())
}

// child puts keys as fast as it can and says each one that is acknowledged.
func child(dir string) {
	s, err := Open(dir, Options{Name: "store/1"})
	if err != nil {
		fmt.Println("!", err)
		return
	}
	go func() { // its parent has gone
		io.Copy(io.Discard, os.Stdin)
		os.Exit(1)
	}()
	var mu sync.Mutex
	var wg sync.WaitGroup
	for c := range 8 {
		wg.Go(func() {
			for n := 0; ; n++ {
				key := fmt.Sprintf("%s-%d-%d", os.Getenv("ROUND"), c, n)
				_, err := s.put(context.Background(), key, record{value: []byte(key)}, condition{})
				mu.Lock()
				if err != nil {
					fmt.Println("!", err)
				} else {
					fmt.Println(key)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
}

// TestKill: nothing acknowledged is lost by kill -9, at whatever moment it comes.
func TestKill(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir, rounds := t.TempDir(), 12
	if testing.Short() {
		rounds = 4
	}
	acked := map[string]bool{}
	for round := range rounds {
		cmd := exec.Command(exe)
		cmd.Env = append(os.Environ(), childVar+"="+dir, "ROUND="+strconv.Itoa(round))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var kill *time.Timer
		lines := bufio.NewReader(out)
		for {
			line, err := lines.ReadString('\n')
			if err != nil { // an incomplete line is no acknowledgement
				break
			}
			if strings.HasPrefix(line, "!") {
				t.Error(line)
			}
			acked[strings.TrimSpace(line)] = true
			if kill == nil { // the moment counts from the first acknowledgement
				kill = time.AfterFunc(rand.N(80*time.Millisecond), func() { cmd.Process.Kill() })
			}
		}
		cmd.Wait()
		in.Close()
		if kill == nil {
			t.Fatal("the child acknowledged nothing")
		}
		kill.Stop()
	}
	s := open(t, dir, Options{})
	for key := range acked {
		if r, err := s.disk.get(key); err != nil || string(r.value) != key {
			t.Errorf("%s was acknowledged and is %q, %v", key, r.value, err)
		}
	}
	t.Logf("%d kills, %d acknowledged writes", rounds, len(acked))
}
