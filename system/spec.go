package system

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Spec is the digest of all that an instance is made from. Two services with the same Spec need no
// restart to become one another: places, routes, scale and the switch are left out.
func (s *Service) Spec() Digest {
	made := struct {
		Software    Software
		Data        Data
		Environment map[string]string
		Limits      Limits
		Volumes     []Volume
		Files       []MountedFile
		Health      Health
		Stop        Stop
		Restart     Restart
		Cache       *Cache
		Restarts    int
		Builtin     []any         `json:",omitempty"` // what a built-in is opened with
		Calls       []ServiceName `json:",omitempty"` // what a module may call
	}{s.Software, s.Data, s.Environment, s.Limits, s.Volumes, s.Files, s.Health, s.Stop, s.Restart, s.Cache, s.Restarts, nil, nil}
	if s.Software.Kind == Wasm {
		for _, d := range s.DependsOn {
			made.Calls = append(made.Calls, d.Service)
		}
		slices.Sort(made.Calls)
	}
	if s.Software.Kind == Builtin {
		made.Builtin = []any{s.Architecture, s.Copies, s.Read, s.Write}
		if s.CAS {
			made.Builtin = append(made.Builtin, "cas")
		}
		if len(s.Flow) > 0 {
			made.Builtin = append(made.Builtin, s.Flow)
		}
	}
	if made.Software.Digest != "" { // bundled: the bytes count, not where they came from
		made.Software.Dir, made.Software.Build = "", nil
	}
	b, err := json.Marshal(made)
	if err != nil {
		panic("system: a service cannot be written as JSON: " + err.Error())
	}
	sum := sha256.Sum256(b)
	return Digest("sha256:" + hex.EncodeToString(sum[:]))
}

// Instance names the n-th copy of a service: api/1.
func Instance(service ServiceName, n int) InstanceID {
	return InstanceID(string(service) + "/" + strconv.Itoa(n))
}

// Split takes an instance's name apart.
func (id InstanceID) Split() (ServiceName, int, error) {
	name, num, ok := strings.Cut(string(id), "/")
	n, err := strconv.Atoi(num)
	if !ok || err != nil || n < 1 || name == "" {
		return "", 0, fmt.Errorf("instance %q: want SERVICE/NUMBER", string(id))
	}
	return ServiceName(name), n, nil
}

// EnvName is a service's name as it stands in an environment variable: upper case, - and . become _.
func (n ServiceName) EnvName() string {
	return strings.ToUpper(strings.NewReplacer("-", "_", ".", "_").Replace(string(n)))
}
