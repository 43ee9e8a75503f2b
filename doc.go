// Package servent is the house: it holds no code but the test of its walls.
//
// Servent runs a Compose file under any distributed-system architecture and measures which one scales.
// Every folder beside this file is a noun of that work. A package imports lower floors only; layers_test.go
// holds the table of floors and enforces it. Data flows one way: a file becomes a [servent/system.System],
// which becomes a plan, which becomes running instances, to which requests are switched.
//
//	0 words     system, blob, identity, meter, peer, peer/keyspace
//	1 decide    placement, route, architecture, overlay/…
//	2 reach     system/sysfile (with its schema and edit), link, request/h1, peer/wire, peer/sim, control, driver, store/journal
//	3 act       conductor, agent, request, store, flow, schedule, admin, console, fleet
//	4 assemble  node, and what a comparison is made of: lab/result, lab/load, lab/law, lab/check, lab/host, lab/accesslog
//	5           launch; overlay/study; and what lab/report draws with: lab/report/figure
//	6 measure   lab, lab/report, lab/trial
//	7           cli, cmd/servent
package servent
