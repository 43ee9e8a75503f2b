# make help lists the targets. Nothing here is needed to use Servent: `go run ./cmd/servent` does.
TOOL  = go tool -modfile=tools.mod
PKGS  = ./...
FUZZTIME ?= 30s

.PHONY: help build check test race long golden bench-idle bench-emulation bench-simulation bench-kv bench-l7 bench-tls bench-fleet bench-sim bench-dns dist check-papers clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/servent
	CGO_ENABLED=0 go build -trimpath -o bin/servent ./cmd/servent

check: ## formatting, vet, staticcheck, dead code, and that macOS and Windows build
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); echo 'run gofmt'; exit 1; }
	go vet $(PKGS)
	GOOS=darwin go vet $(PKGS)
	GOOS=windows go vet $(PKGS)
	GOOS=darwin go build -o /dev/null ./cmd/servent
	GOOS=windows go build -o /dev/null ./cmd/servent
	$(TOOL) staticcheck $(PKGS)
	@dead="$$($(TOOL) deadcode -test $(PKGS))"; test -z "$$dead" || { echo "$$dead"; echo 'delete what nothing reaches'; exit 1; }

test: ## the tests, as the README has them
	go test $(PKGS)

race: ## the tests under the race detector
	go test -race -short $(PKGS)

long: ## what takes longer: race detector, every fuzz test for FUZZTIME
	SERVENT_LONG=1 go test -race -timeout 20m $(PKGS)
	@go list $(PKGS) | while read p; do \
		for f in $$(go test -list '^Fuzz' $$p | grep '^Fuzz'); do \
			echo "== $$p $$f"; go test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 100x $$p || exit 1; \
		done; done

golden: ## rewrite golden files; read their diff before you commit
	go test ./system/sysfile -update

bench-idle: build ## memory of idle nodes → bench/idle.md
	bench/idle.sh bin/servent > bench/idle.md.new && mv bench/idle.md.new bench/idle.md && cat bench/idle.md

bench-emulation: build ## throughput of 1…16 emulated nodes → bench/emulation.md
	go build -o bin/emulation ./bench/emulation && bin/emulation bin/servent > bench/emulation.md.new && mv bench/emulation.md.new bench/emulation.md && cat bench/emulation.md

bench-simulation: build ## the simulation against 4 and 8 emulated nodes and a real queue → bench/simulation.md
	go build -o bin/simulation ./bench/simulation && bin/simulation bin/servent > bench/simulation.md.new && mv bench/simulation.md.new bench/simulation.md && cat bench/simulation.md

bench-kv: ## the built-in key-value store beside Debian's redis-server and etcd-server → bench/kv.md
	go build -o bin/kv ./bench/kv && bin/kv $(BENCH_KV) > bench/kv.md.new && mv bench/kv.md.new bench/kv.md && cat bench/kv.md

bench-l7: ## a request through a door beside HAProxy, nginx and Caddy (wrk, nginx, haproxy; caddy if there) → bench/l7.md
	go build -o bin/l7 ./bench/l7 && bin/l7 $(BENCH_L7) > bench/l7.md.new && mv bench/l7.md.new bench/l7.md && cat bench/l7.md

bench-tls: ## the same for clients that come by TLS (wrk, nginx, haproxy, openssl) → bench/tls.md
	go build -o bin/l7 ./bench/l7 && bin/l7 -tls $(BENCH_TLS) > bench/tls.md.new && mv bench/tls.md.new bench/tls.md && cat bench/tls.md

bench-fn: ## a call of a function beside a handler, a server and a process for each request → bench/fn.md
	go build -o bin/fn ./bench/fn && bin/fn > bench/fn.md.new && mv bench/fn.md.new bench/fn.md && cat bench/fn.md

bench-fleet: build ## 1…200 nodes of one system on this machine: changes, control, memory → bench/fleet.md
	go build -o bin/fleet ./bench/fleet && bin/fleet bin/servent > bench/fleet.md.new && mv bench/fleet.md.new bench/fleet.md && cat bench/fleet.md

check-papers: ## simulated overlays beside theory and their papers, to 10^6 nodes → bench/papers.md; fails where they do not agree
	go build -o bin/papers ./bench/papers && bin/papers > bench/papers.md.new && mv bench/papers.md.new bench/papers.md && cat bench/papers.md

bench-sim: ## the overlay simulator's engine beside a queue by priority → bench/sim.md
	go build -o bin/sim ./bench/sim && bin/sim > bench/sim.md.new && mv bench/sim.md.new bench/sim.md && cat bench/sim.md

bench-dns: ## the name server beside Debian's nsd, asked by dnsperf → bench/dns.md
	go build -o bin/dns ./bench/dns && bin/dns $(BENCH_DNS) > bench/dns.md.new && mv bench/dns.md.new bench/dns.md && cat bench/dns.md

dist: ## archives for every platform, Debian packages and their sums → dist/
	go run ./cmd/dist

clean: ## remove what was built
	rm -rf bin dist
