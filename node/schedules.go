package node

import (
	"context"

	"servent/control"
	"servent/schedule"
	"servent/system"
)

// lead is what the node does beside planning while its conductor leads.
func (n *Node) lead(ctx context.Context, f control.Fence) {
	schedule.Run(ctx, schedule.Options{Store: n.cluster.Store, Fence: f, Changed: n.news.wait, URL: n.door, Log: n.log,
		Plan: func() *system.Plan { return n.view.Load().Plan }})
}
