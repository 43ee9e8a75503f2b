package l7

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"servent/route"
	"servent/system"
)

const (
	locateFor = 2 * time.Second // one look for the owner of a key may take; then it is looked for again
	behindFor = time.Second     // an owner's node whose view is behind may take to catch up
)

var errMoved = errors.New("it does not own the key")

// keyed is what is known of a request's key.
type keyed struct {
	key   route.Key
	epoch uint64
	hops  int // node to node, until the owner was known
}

// owner narrows a target to the instance that owns the request's key, if a key decides. The error wraps
// [route.ErrNoKey]. When the owner cannot be found out, the target says so.
func (x *exchange) owner(t *route.Table, to route.Target) (route.Target, error) {
	if to.Locator == nil {
		return to, nil
	}
	if x.keyed == nil {
		key, err := x.key(to.Key)
		if err != nil && to.Key.Any {
			to.Locator = nil
			return to, nil
		}
		if err != nil {
			return to, err
		}
		x.keyed = &keyed{key: key}
	}
	ctx, cancel := context.WithTimeout(x.in.Context(), locateFor)
	defer cancel()
	at, err := to.Locator.Locate(ctx, x.keyed.key)
	if err != nil {
		to.Among, to.Why = nil, "the owner of the key was not found: "+err.Error()
		to.Seeks = !errors.Is(err, route.ErrNoInstance)
		return to, nil
	}
	x.keyed.epoch = at.Epoch
	x.keyed.hops += at.Hops
	return t.Owner(to, at), nil
}

func (x *exchange) key(rule route.KeyRule) (route.Key, error) {
	if rule.Body() && x.stream != nil {
		return "", fmt.Errorf("%w: a body of unknown length or above %d bytes is not read for it", route.ErrNoKey, replay)
	}
	return rule.Find(x.in, x.small, x.source())
}

// noKey answers a request whose key is not where it should be.
func (x *exchange) noKey(to route.Target, err error) {
	x.s.o.Meter.Line(to.Service, "").Refused()
	x.refuse(http.StatusBadRequest, fmt.Sprintf("%s divides its requests by key %s: %v", to.Service, to.Key, err), "servent explain "+string(to.Service))
}

// enter waits for the request's key where it is on its way to an instance of this node.
func (x *exchange) enter(ctx context.Context, id system.InstanceID) (leave func(), err error) {
	if x.keyed == nil || x.s.o.Keys == nil {
		return func() {}, nil
	}
	service, _, err := id.Split()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, max(x.s.o.Hold, 0))
	defer cancel()
	if leave, err = x.s.o.Keys.Enter(ctx, service, id, x.keyed.key); err != nil {
		return nil, fmt.Errorf("%w: %w", errMoved, err)
	}
	return leave, nil
}

func (k *keyed) set(h http.Header) {
	h.Set(headerKey, url.QueryEscape(string(k.key)))
	h.Set(headerEpoch, strconv.FormatUint(k.epoch, 10))
}

func (k *keyed) del(h http.Header) {
	h.Del(headerKey)
	h.Del(headerEpoch)
}

// timing is the Server-Timing entry of the way to the owner.
func (k *keyed) timing() string {
	if k == nil {
		return ""
	}
	return fmt.Sprintf(`, lookup;desc="%d"`, k.hops)
}

// owns checks by this node's view that an instance owns the key that another node asks it for. A view
// that is behind the asker's has a moment to catch up.
func (s *Switch) owns(r *http.Request, service system.ServiceName, id system.InstanceID) (*keyed, error) {
	if len(r.Header[headerKey]) == 0 {
		return nil, nil // no key decides, or any instance will do
	}
	key, err := url.QueryUnescape(r.Header.Get(headerKey))
	if err != nil {
		return nil, err
	}
	epoch, err := strconv.ParseUint(r.Header.Get(headerEpoch), 10, 64)
	if err != nil {
		return nil, err
	}
	k := &keyed{key: route.Key(key), epoch: epoch}
	var late <-chan time.Time
	for {
		changed := s.o.Changed() // before the table, so that no swap is missed
		svc := s.table().Services[service]
		if svc == nil || svc.Locator == nil {
			return nil, route.ErrBehind
		}
		err := svc.Locator.Owns(route.Key(key), id, epoch)
		if !errors.Is(err, route.ErrBehind) {
			return k, err
		}
		if late == nil {
			t := time.NewTimer(behindFor)
			defer t.Stop()
			late = t.C
		}
		select {
		case <-changed:
		case <-late:
			return k, err
		case <-r.Context().Done():
			return k, err
		}
	}
}
