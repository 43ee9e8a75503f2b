package l4

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"servent/route"
	"servent/system"
)

// A tunnel begins with one line, "servent-l4 1 INSTANCE HOPS", and one in answer, "ok" or "no WHY"; then
// come the connection's bytes, both ways.
const (
	protocol = "servent-l4 1"
	maxLine  = 512 // bytes
	maxHops  = 1   // the instance is where the tunnel ends, or nowhere: no connection goes in circles
)

// preamble is what the node that a connection entered by says first.
type preamble struct {
	instance system.InstanceID
	hops     int // from node to node, this tunnel counted
}

func (p preamble) String() string {
	return fmt.Sprintf("%s %s %d", protocol, p.instance, p.hops)
}

func parsePreamble(line string) (preamble, error) {
	rest, ok := strings.CutPrefix(line, protocol+" ")
	name, number, ok2 := strings.Cut(rest, " ")
	if !ok || !ok2 {
		return preamble{}, fmt.Errorf("want %q INSTANCE HOPS, have %.40q", protocol, line)
	}
	p := preamble{instance: system.InstanceID(name)}
	if _, _, err := p.instance.Split(); err != nil {
		return preamble{}, err
	}
	hops, err := strconv.Atoi(number)
	if err != nil || hops < 1 || hops > maxHops {
		return preamble{}, fmt.Errorf("want 1…%d hops, have %.40q", maxHops, number)
	}
	p.hops = hops
	if p.String() != line {
		return preamble{}, fmt.Errorf("want %q, have %.40q", p, line)
	}
	return p, nil
}

// readLine reads up to a line feed and not one byte further.
func readLine(r io.Reader) (string, error) {
	var line [maxLine]byte
	for n := range line {
		if _, err := io.ReadFull(r, line[n:n+1]); err != nil {
			return "", err
		}
		if line[n] == '\n' {
			return string(line[:n]), nil
		}
	}
	return "", fmt.Errorf("no line in %d bytes", maxLine)
}

// here opens a connection to an instance of this node.
func (s *Switch) here(ctx context.Context, id system.InstanceID) (net.Conn, error) {
	if s.o.Local == nil {
		return nil, errors.New("it does not run here")
	}
	ep, ok := s.o.Local(id)
	switch {
	case !ok:
		return nil, errors.New("it does not run here")
	case ep.Address == "":
		return nil, errors.New("it answers HTTP inside the node: its service must be switched by request")
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return ep.Connect(ctx)
}

// there opens a tunnel to an instance of another node. unreachable says that the node was not reached.
func (s *Switch) there(ctx context.Context, in route.Instance) (up net.Conn, unreachable bool, err error) {
	if s.o.Dial == nil {
		return nil, true, errors.New("no link to its node")
	}
	ctx, cancel := context.WithTimeout(ctx, greeting)
	defer cancel()
	up, err = s.o.Dial(ctx, in.Node)
	if err != nil {
		return nil, true, err
	}
	stop := context.AfterFunc(ctx, func() { _ = up.Close() })
	answer := ""
	if _, err = io.WriteString(up, preamble{in.ID, maxHops}.String()+"\n"); err == nil {
		answer, err = readLine(up)
	}
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err == nil && answer == "ok" {
		return up, false, nil
	}
	_ = up.Close()
	if err != nil {
		return nil, false, fmt.Errorf("open a tunnel to it: %w", err)
	}
	why, ok := strings.CutPrefix(answer, "no ")
	if !ok {
		return nil, false, fmt.Errorf("open a tunnel to it: its node says %.40q", answer)
	}
	return nil, false, errors.New(why)
}

// Peer takes the tunnels that other nodes open to this one. The instance that a tunnel names is here, or
// the tunnel is refused: it is never led on. It ends as [Switch.Serve] does.
func (s *Switch) Peer(ctx context.Context, ln net.Listener) error {
	return s.accept(ctx, ln, s.peer)
}

func (s *Switch) peer(ctx context.Context, tunnel net.Conn) {
	_ = tunnel.SetDeadline(time.Now().Add(greeting)) // if it cannot be set, the other node's patience bounds it
	stop := context.AfterFunc(ctx, func() { _ = tunnel.Close() })
	line, err := readLine(tunnel)
	if !stop() || err != nil {
		return
	}
	p, err := parsePreamble(line)
	var up net.Conn
	if err == nil {
		n := s.serving(p.instance)
		n.Add(1)
		defer n.Add(-1)
		up, err = s.here(ctx, p.instance)
	}
	if err != nil {
		why := strings.NewReplacer("\n", " ", "\r", " ").Replace(err.Error())
		_, _ = fmt.Fprintf(tunnel, "no %.*s\n", maxLine-8, why) // it learns the same from the end
		return
	}
	if _, err := io.WriteString(tunnel, "ok\n"); err != nil {
		reset(up)
		return
	}
	_ = tunnel.SetDeadline(time.Time{})
	r := relay{client: tunnel, up: up}
	if s.o.Station != nil {
		r.turns = &turns{take: s.o.Station.Serve}
	}
	if err := r.run(ctx); err != nil {
		s.o.Log.Debug("tunnelled connection", "instance", p.instance, "err", err)
	}
}
