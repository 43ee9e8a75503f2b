package system

import (
	"fmt"
	"slices"
	"time"
)

// Names are types, so that a node is never taken for a service.
type (
	NodeID      string // one servent process: node-1
	ServiceName string // one entry of the user's file: api
	InstanceID  string // one running copy: api/1
	Site        string // where nodes are near one another: eu
	Digest      string // bytes by their hash: sha256:…
)

// System is what the user asks for: one Compose file, merged, checked, with x-servent read.
type System struct {
	Name     string      `json:"name"`
	Services []Service   `json:"services"` // sorted by name
	Nodes    []NodeGroup `json:"nodes"`    // sorted by name; never empty after sysfile
	Web      *Web        `json:"web,omitempty"`
	Compare  *Compare    `json:"compare,omitempty"`
}

// Service returns the service of that name, or nil.
func (s *System) Service(name ServiceName) *Service {
	for i := range s.Services {
		if s.Services[i].Name == name {
			return &s.Services[i]
		}
	}
	return nil
}

// Service is one entry of the user's file.
type Service struct {
	Name         ServiceName       `json:"name"`
	Pos          Pos               `json:"pos"`
	Software     Software          `json:"software"`
	Architecture Architecture      `json:"architecture"`
	Topology     string            `json:"topology,omitempty"` // of unstructured: random, scale-free
	Key          string            `json:"key,omitempty"`      // template: /carts/{key}/*, header:X-User
	NoKey        string            `json:"nokey,omitempty"`    // a request without key: refuse (default), any
	Copies       int               `json:"copies,omitempty"`   // of each key; 0 means 1
	Read         string            `json:"read,omitempty"`     // of builtin kv, copies a read waits for: one, quorum (default), all
	Write        string            `json:"write,omitempty"`    // the same of a write
	CAS          bool              `json:"cas,omitempty"`      // of builtin kv: one owner orders all requests of a key
	Idempotent   bool              `json:"idempotent,omitempty"`
	Data         Data              `json:"data"`
	Switch       Switch            `json:"switch"`
	Replicas     int               `json:"replicas,omitempty"` // deploy.replicas; 0 means not said
	Scale        Scale             `json:"scale"`
	Routes       []Route           `json:"routes,omitempty"`
	Ports        []Port            `json:"ports,omitempty"`
	Health       Health            `json:"health"`
	Environment  map[string]string `json:"environment,omitempty"`
	DependsOn    []Dependency      `json:"depends_on,omitempty"` // order only, and a hint for locality
	Placement    Placement         `json:"placement"`
	Near         string            `json:"near,omitempty"` // clients, or a service's name
	Limits       Limits            `json:"limits"`
	Reserve      Resources         `json:"reserve"` // deploy.resources.reservations
	Restart      Restart           `json:"restart"`
	Stop         Stop              `json:"stop"`
	Update       Update            `json:"update"`
	Volumes      []Volume          `json:"volumes,omitempty"`
	Files        []MountedFile     `json:"mounted,omitempty"` // configs and secrets
	Cache        *Cache            `json:"cache,omitempty"`
	Flow         []Step            `json:"flow,omitempty"` // of builtin flow
	On           []Trigger         `json:"on,omitempty"`   // what calls it though no client does
	Labels       map[string]string `json:"labels,omitempty"`
	Restarts     int               `json:"restarts,omitempty"` // asked for by the user; a change makes new instances
}

// Tied says that the service's instances belong to the nodes that hold their data: it is never
// started empty elsewhere and never twice on one folder.
func (s *Service) Tied() bool { return s.Data.Kind == DataHard || len(s.Volumes) > 0 }

// Public says that the service is reached from outside: by a published port or by a route.
func (s *Service) Public() bool { return len(s.Ports) > 0 || len(s.Routes) > 0 }

// Architecture is a word of the architecture table.
type Architecture string

const (
	Single       Architecture = "single"
	Replicated   Architecture = "replicated"
	Partitioned  Architecture = "partitioned"
	Ring         Architecture = "ring"
	Chord        Architecture = "chord"
	Pastry       Architecture = "pastry"
	Kademlia     Architecture = "kademlia"
	Unstructured Architecture = "unstructured"
	Superpeer    Architecture = "superpeer"
	Swarm        Architecture = "swarm"
	Edge         Architecture = "edge"
	Function     Architecture = "function"
)

// SoftwareKind is what a service is made of: exactly one of these.
type SoftwareKind string

const (
	Process SoftwareKind = "process" // a plain executable
	Wasm    SoftwareKind = "wasm"    // a WebAssembly module
	VM      SoftwareKind = "vm"      // a disk image
	Files   SoftwareKind = "files"   // a folder served as it is
	Origin  SoftwareKind = "origin"  // an HTTP server that runs elsewhere
	Builtin SoftwareKind = "builtin" // kv, index, flow
	Image   SoftwareKind = "image"   // a container image
)

// Software is what runs.
type Software struct {
	Kind    SoftwareKind `json:"kind"`
	From    string       `json:"from,omitempty"`    // module, disk, folder, URL, built-in or image; empty for process
	Run     []string     `json:"run,omitempty"`     // process: program and arguments
	Build   []string     `json:"build,omitempty"`   // process: command that makes the program when sources are newer
	Recipe  *Recipe      `json:"recipe,omitempty"`  // image: how it is built; nil: it is fetched
	Include []string     `json:"include,omitempty"` // process: further files and folders of the bundle
	Dir     string       `json:"dir,omitempty"`     // absolute folder that relative paths start from
	Digest  Digest       `json:"digest,omitempty"`  // of the bundle; set by launch
	// Container says how an image is run where the file does not leave it to the image.
	Container *Container `json:"container,omitempty"`
	Machine   *Machine   `json:"machine,omitempty"` // of a vm
}

// Machine is a virtual machine. Files are named from Software.Dir on, and in the bundle.
type Machine struct {
	Disk     string `json:"disk,omitempty"`      // qcow2 or raw; it is never written to
	Kernel   string `json:"kernel,omitempty"`    // is booted instead of what the disk has
	Initrd   string `json:"initrd,omitempty"`    // its first file system
	Append   string `json:"append,omitempty"`    // to its command line
	UserData string `json:"user_data,omitempty"` // cloud-init's
	Port     int    `json:"port,omitempty"`      // that the guest answers at; 0 means 8080
	Warm     bool   `json:"warm,omitempty"`      // it starts from a state that was saved when it first answered
	Memory   int64  `json:"memory,omitempty"`    // bytes; 0 means 256 MiB
	CPUs     int    `json:"cpus,omitempty"`      // 0 means 1
}

// Recipe is how an image is built: Compose's build.
type Recipe struct {
	Context    string            `json:"context"`              // a folder, absolute or from Software.Dir, or a URL
	Dockerfile string            `json:"dockerfile,omitempty"` // in the context; empty: Dockerfile
	Inline     string            `json:"inline,omitempty"`     // its text, instead
	Target     string            `json:"target,omitempty"`     // stage
	Args       map[string]string `json:"args,omitempty"`
}

// Container are the words of Compose that change how an image runs. Zero values leave it to the image.
type Container struct {
	Entrypoint []string `json:"entrypoint"`     // an empty one that is not nil takes the image's away
	Command    []string `json:"command"`        // the same
	User       string   `json:"user,omitempty"` // NAME or NUMBER, :GROUP after it
	WorkingDir string   `json:"working_dir,omitempty"`
	Hostname   string   `json:"hostname,omitempty"`
	ReadOnly   bool     `json:"read_only,omitempty"` // the root file system
	Tmpfs      []string `json:"tmpfs,omitempty"`     // folders in memory, each with options after a colon
	Ports      []int    `json:"ports,omitempty"`     // that the program listens on; the first is asked
	CapAdd     []string `json:"cap_add,omitempty"`   // see [Capability]
	CapDrop    []string `json:"cap_drop,omitempty"`
	Egress     bool     `json:"egress,omitempty"` // the outside is reached, by proxies
}

// DataKind says what is lost when an instance starts empty.
type DataKind string

const (
	DataNone DataKind = "none" // nothing
	DataSoft DataKind = "soft" // something that comes back by itself
	DataHard DataKind = "hard" // something that does not
)

// Data describes a service's data.
type Data struct {
	Kind   DataKind `json:"kind"`
	Path   string   `json:"path,omitempty"`   // inside the instance's private folder
	Export string   `json:"export,omitempty"` // request that reads one key: GET /_export/{key}
	Import string   `json:"import,omitempty"` // request that writes one key: PUT /_import/{key}
}

// By says at which layer requests are switched.
type By string

const (
	ByConnection By = "connection" // transport layer
	ByRequest    By = "request"    // application layer
	ByName       By = "name"       // DNS
)

// Switch says how requests are spread over a service's instances.
type Switch struct {
	By     By     `json:"by"`               // never empty after sysfile
	Policy string `json:"policy,omitempty"` // p2c (default), roundrobin, random, leastconn, …
	Sticky string `json:"sticky,omitempty"` // none (default), cookie, key, source
	Model  string `json:"model,omitempty"`  // threads (default), fsm, one
	Proxy  string `json:"proxy,omitempty"`  // none (default), v1, v2: what a connection to an instance begins with
	// TTL is how long an answer may be kept, by name: whole seconds, 0 means not at all. Set by sysfile.
	TTL time.Duration `json:"ttl,omitempty"`
}

// Scale bounds the number of instances. Zero values mean not said.
type Scale struct {
	Min      int           `json:"min,omitempty"`
	Max      int           `json:"max,omitempty"`
	Inflight int           `json:"inflight,omitempty"` // requests in flight an instance, the goal
	Latency  time.Duration `json:"latency,omitempty"`  // the goal
	CPU      float64       `json:"cpu,omitempty"`      // the goal, 0…1
	Idle     time.Duration `json:"idle,omitempty"`     // how long an instance is kept that calls do not need
	Warm     time.Duration `json:"warm,omitempty"`     // times without calls up to this are learnt, so that one instance is there for the next call; 0: none are
}

// Route is a path of the system's web door.
type Route struct {
	Host string `json:"host,omitempty"` // empty: any
	Path string `json:"path"`           // /api/* or /exact
	Pos  Pos    `json:"pos"`
}

// Port is a published door.
type Port struct {
	Host      string `json:"host,omitempty"`         // address to listen on; empty means 127.0.0.1 on a laptop
	Published int    `json:"published"`              // 0: chosen
	Target    int    `json:"target"`                 // the program's own word; $PORT wins
	Protocol  string `json:"protocol"`               // tcp, udp
	App       string `json:"app_protocol,omitempty"` // in lower case: http, https, …
	Pos       Pos    `json:"pos"`
}

// Health says when an instance may get requests. All zero: a TCP connection is enough.
type Health struct {
	HTTP        string        `json:"http,omitempty"` // path that must answer 2xx or 3xx
	TCP         bool          `json:"tcp,omitempty"`
	Command     []string      `json:"command,omitempty"` // must exit 0; ["CMD-SHELL", line] runs a shell
	Disabled    bool          `json:"disabled,omitempty"`
	Interval    time.Duration `json:"interval,omitempty"`     // 0 means 2s
	Timeout     time.Duration `json:"timeout,omitempty"`      // 0 means 2s
	Retries     int           `json:"retries,omitempty"`      // failures until unhealthy; 0 means 3
	StartPeriod time.Duration `json:"start_period,omitempty"` // failures do not count; 0 means 0
}

// Dependency is one entry of depends_on.
type Dependency struct {
	Service   ServiceName `json:"service"`
	Condition string      `json:"condition"` // started, healthy, completed
	Optional  bool        `json:"optional,omitempty"`
}

// Placement is deploy.placement.
type Placement struct {
	Constraints []Constraint `json:"constraints,omitempty"`
	Spread      []string     `json:"spread,omitempty"`       // labels to spread over, most important first: site, node.labels.rack
	MaxPerNode  int          `json:"max_per_node,omitempty"` // 0: no bound
}

// Constraint is node.labels.disk == ssd, node.id != node-1, node.site == eu, node.role == server.
type Constraint struct {
	Attribute string `json:"attribute"`
	Not       bool   `json:"not,omitempty"`
	Value     string `json:"value"`
	Pos       Pos    `json:"pos"`
}

// Resources are amounts of a machine.
type Resources struct {
	Memory int64   `json:"memory,omitempty"` // bytes
	CPUs   float64 `json:"cpus,omitempty"`
	Pids   int64   `json:"pids,omitempty"`
}

// Limits bound one instance. Zero values mean no bound.
type Limits struct {
	Resources
	Fuel        float64       `json:"fuel,omitempty"`    // wasm instructions a call
	Timeout     time.Duration `json:"timeout,omitempty"` // of a call
	Output      int64         `json:"output,omitempty"`  // bytes a call
	Concurrency int           `json:"concurrency,omitempty"`
	OpenFiles   int64         `json:"open_files,omitempty"` // ulimits.nofile
}

// Restart is Compose's restart and deploy.restart_policy.
type Restart struct {
	Condition string        `json:"condition,omitempty"` // any (default), on-failure, none
	Delay     time.Duration `json:"delay,omitempty"`     // first back-off; 0 means 100ms
	Max       int           `json:"max,omitempty"`       // attempts; 0 means no bound
}

// Stop says how an instance is ended.
type Stop struct {
	Signal string        `json:"signal,omitempty"` // SIGTERM by default
	Grace  time.Duration `json:"grace,omitempty"`  // 0 means 10s
}

// Update is deploy.update_config.
type Update struct {
	Parallelism int           `json:"parallelism,omitempty"` // instances at a time; 0 means 1
	Delay       time.Duration `json:"delay,omitempty"`
	Order       string        `json:"order,omitempty"`   // start-first (default for stateless), stop-first
	Failure     string        `json:"failure,omitempty"` // pause (default), continue, rollback
	Monitor     time.Duration `json:"monitor,omitempty"`
}

// Volume is a folder that outlives instances.
type Volume struct {
	Type     string `json:"type"`             // volume, bind, tmpfs
	Source   string `json:"source,omitempty"` // volume's name or host folder
	Target   string `json:"target"`           // path as the program knows it
	ReadOnly bool   `json:"read_only,omitempty"`
}

// MountedFile is a config or a secret.
type MountedFile struct {
	Kind   string `json:"kind"` // config, secret
	Name   string `json:"name"`
	From   string `json:"from,omitempty"` // absolute file on the user's machine
	Env    string `json:"env,omitempty"`  // or an environment variable there
	Text   string `json:"text,omitempty"` // or the content itself (configs only)
	Target string `json:"target"`
	Digest Digest `json:"digest,omitempty"` // set by launch
}

// Cache bounds an edge cache.
type Cache struct {
	Size                 int64         `json:"size,omitempty"` // bytes
	StaleIfError         time.Duration `json:"stale_if_error,omitempty"`
	StaleWhileRevalidate time.Duration `json:"stale_while_revalidate,omitempty"`
}

// NodeGroup is an entry of x-servent.nodes: emulated nodes on one machine, labels on a fleet.
type NodeGroup struct {
	Name     string            `json:"name"`
	Count    int               `json:"count"`
	Site     Site              `json:"site"` // the group's name by default
	Capacity Capacity          `json:"capacity"`
	Links    []LinkSpec        `json:"links,omitempty"` // sorted by To
	Labels   map[string]string `json:"labels,omitempty"`
	Price    Price             `json:"price"`
	Pos      Pos               `json:"pos"`
}

// Capacity of an emulated node.
type Capacity struct {
	Rate    float64 `json:"rate,omitempty"`    // requests a second that one worker serves; 0: not emulated
	Workers int     `json:"workers,omitempty"` // requests served at once; 0 means 1
	Pass    float64 `json:"pass,omitempty"`    // requests a second sent onward; 0 means 10 × rate
}

// LinkSpec is the emulated way to another site.
type LinkSpec struct {
	To      Site          `json:"to"`
	Latency time.Duration `json:"latency,omitempty"` // one way
	Rate    int64         `json:"rate,omitempty"`    // bits a second; 0: no bound
}

// Price of a node.
type Price struct {
	Amount   float64 `json:"amount,omitempty"`
	Currency string  `json:"currency,omitempty"`
	Per      string  `json:"per,omitempty"` // hour, month
}

// Compare is x-servent.compare as written; package lab gives it meaning.
type Compare struct {
	Service  ServiceName       `json:"service,omitempty"`
	Axes     []Axis            `json:"axes,omitempty"`     // every combination of their values is a variant
	Variants []Variant         `json:"variants,omitempty"` // with a name of their own
	Load     Load              `json:"load"`
	Check    string            `json:"check,omitempty"` // auto (default), counter, kv, set, hash, none
	Goal     map[string]string `json:"goal,omitempty"`  // p99: 100ms, errors: 0.1%, survive: 1 node
	Pos      Pos               `json:"pos"`
}

// Axis is one path and the values it takes.
type Axis struct {
	Path   string   `json:"path"`
	Values []string `json:"values"`
}

// Variant is a name and values over the file, by path.
type Variant struct {
	Name string            `json:"name"`
	Set  map[string]string `json:"set"`
}

// Load is the load of a comparison.
type Load struct {
	Open    string             `json:"open,omitempty"`   // 50..2000/s
	Closed  string             `json:"closed,omitempty"` // clients
	Mix     []MixEntry         `json:"mix,omitempty"`
	Send    string             `json:"send,omitempty"`   // of a TCP service: one request
	Expect  string             `json:"expect,omitempty"` // of it: line (default), end, a number of bytes
	Keys    string             `json:"keys,omitempty"`   // zipf 0.99 of 1e5
	Preload bool               `json:"preload,omitempty"`
	From    map[string]float64 `json:"from,omitempty"` // site → share, 0…1
	// Resolvers is how many caches of names the clients of each site share, of a service switched by name; 0: not said.
	Resolvers int `json:"resolvers,omitempty"`
}

// MixEntry is one kind of request and its weight.
type MixEntry struct {
	Request string  `json:"request"` // GET /carts/{key}
	Weight  float64 `json:"weight"`
}

// Bounds is 2 to 6, or 2 or more: instances.
func (s Scale) Bounds() string {
	if s.Max == 0 {
		return fmt.Sprintf("%d or more", max(s.Min, 1))
	}
	return fmt.Sprintf("%d to %d", max(s.Min, 1), s.Max)
}

// Clashes says that two ports cannot both be published on one machine.
func (p Port) Clashes(q Port) bool {
	all := func(host string) bool { return host == "" || host == "0.0.0.0" || host == "::" }
	return p.Published == q.Published && p.Protocol == q.Protocol && (p.Host == q.Host || all(p.Host) || all(q.Host))
}

// Cycles are services that wait for one another: each way round once, from its first service by name to itself.
func (s *System) Cycles() [][]ServiceName {
	const open, closed = 1, 2
	var found [][]ServiceName
	var way []ServiceName
	state := map[ServiceName]int{}
	var visit func(name ServiceName)
	visit = func(name ServiceName) {
		one := s.Service(name)
		if one == nil || state[name] == closed {
			return
		}
		state[name] = open
		way = append(way, name)
		for _, d := range one.DependsOn {
			if state[d.Service] == open {
				found = append(found, append(slices.Clone(way[slices.Index(way, d.Service):]), d.Service))
			} else {
				visit(d.Service)
			}
		}
		way = way[:len(way)-1]
		state[name] = closed
	}
	for i := range s.Services {
		visit(s.Services[i].Name)
	}
	return found
}
