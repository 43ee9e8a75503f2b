#!/usr/bin/env bash
# Prints the memory of three idle nodes that run one tiny service: resident set, and what of it is the
# process's own (the program's text is shared by all). Linux only.
set -euo pipefail
servent=$(realpath "${1:-bin/servent}")
dir=$(mktemp -d)
trap '"$servent" -C "$dir/counter" down >/dev/null 2>&1 || true; rm -rf "$dir"' EXIT
"$servent" -C "$dir" init counter >/dev/null 2>&1
"$servent" -C "$dir/counter" up -d >/dev/null
sleep 20 # idle: the start's garbage is collected

rss() { awk '/^VmRSS/{print $2}' "/proc/$1/status"; }
own() { awk '/^Private/{s+=$2} END{print s}' "/proc/$1/smaps_rollup"; }
mib() { awk -v k="$1" 'BEGIN{printf "%.1f", k/1024}'; }
row() { printf '| %s | %s | %s |\n' "$1" "$(mib "$(rss "$2")")" "$(mib "$(own "$2")")"; }

printf '# Memory of idle nodes\n\n`make bench-idle` · %s · %s · load average %s\n\n' "$("$servent" version)" "$(uname -sr)" "$(cut -d' ' -f1-3 /proc/loadavg)"
printf '| process | resident MiB | of it private MiB |\n|---|---|---|\n'
keeper=$(grep -o '"pid": [0-9]*' "$dir/counter/.servent/run.json" | grep -o '[0-9]*')
row "keeper (published ports, admin door)" "$keeper"
control=0
for node in $(pgrep -P "$keeper"); do
	etcd=$(pgrep -P "$node" -f __etcd || true)
	if [ -n "$etcd" ]; then
		row "node-1: node with conductor and control" "$node"
		row "its etcd" "$etcd"
		control=$(($(rss "$node") + $(rss "$etcd")))
	else
		row "plain node" "$node"
	fi
done
printf '\nControl with etcd in all: %s MiB (goal: 90). Plain node: goal 35 MiB.\n' "$(mib "$control")"
