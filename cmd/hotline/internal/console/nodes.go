package console

import (
	"context"
	"net/http"
	"slices"
)

// nodeTable is the routes of the gateways, none where this one stands alone.
func (c *Console) nodeTable() []route {
	if c.deps.Nodes == nil {
		return nil
	}
	return []route{
		{"GET", "/nodes", watchers, c.nodesPage, nil},
		{"GET", "/nodes/stream", watchers, c.nodesStream, nil},
		{"POST", "/nodes/{name}/drain", keepers, c.drainNode, nil},
		{"POST", "/nodes/{name}/resume", keepers, c.resumeNode, nil},
		{"POST", "/nodes/{name}/forget", keepers, c.forgetNode, nil},

		{"GET", v1 + "/nodes", watchers, c.apiNodes, op("listNodes", "The gateways, present or absent, by name", nil, []Node{})},
		{"POST", v1 + "/nodes/{name}/drain", keepers, c.apiDrainNode, op("drainNode", "Let a gateway take no new calls, which is audited", nil, nil)},
		{"POST", v1 + "/nodes/{name}/resume", keepers, c.apiResumeNode, op("resumeNode", "Let a gateway take calls again, which is audited", nil, nil)},
		{"POST", v1 + "/nodes/{name}/forget", keepers, c.apiForgetNode, op("forgetNode", "Take an absent gateway off the list, which is audited", nil, nil)},
	}
}

// nodesData is what the page of the gateways shows.
type nodesData struct {
	Rows  []nodeRow
	Ready int // gateways that take new calls
}

// nodeRow is a gateway, and in what it differs from the one that shows it. While a cluster is upgraded
// its gateways differ on purpose; at any other time somebody forgot one.
type nodeRow struct {
	Node
	OtherVersion, OtherConfig, OtherPolicy bool
}

// Last says whether nobody takes new calls when this gateway does not.
func (d nodesData) Last(n nodeRow) bool { return d.Ready == 1 && n.Alive && !n.Draining }

// Differ says whether two gateways that are alive differ.
func (d nodesData) Differ() bool {
	return slices.ContainsFunc(d.Rows, func(r nodeRow) bool { return r.OtherConfig || r.OtherPolicy })
}

func nodesOf(nodes []Node) nodesData {
	var d nodesData
	self := slices.IndexFunc(nodes, func(n Node) bool { return n.Self })
	for _, n := range nodes {
		row := nodeRow{Node: n}
		if n.Alive && !n.Draining {
			d.Ready++
		}
		if n.Alive && self >= 0 {
			own := nodes[self]
			row.OtherVersion, row.OtherConfig, row.OtherPolicy =
				n.Version != own.Version, n.ConfigHash != own.ConfigHash, n.PolicyHash != own.PolicyHash
		}
		d.Rows = append(d.Rows, row)
	}
	return d
}

// Brief is as much of a hash as tells two apart at a glance.
func (nodeRow) Brief(hash string) string { return hash[:min(len(hash), 8)] }

func (c *Console) nodesPage(w http.ResponseWriter, v *visit) {
	m := c.model(v, nodesOf(c.snapshot(v.Context()).Nodes))
	m.Flash = m.said(v.Request)
	c.send(w, http.StatusOK, "nodes", "layout", m)
}

func (c *Console) nodesStream(w http.ResponseWriter, v *visit) {
	c.stream(w, v, func(e events, s Snapshot) error {
		return c.show(e, v, "nodes", "gateways", nodesOf(s.Nodes))
	})
}

// nodeBy does an act on the gateway that the path names.
func (c *Console) nodeBy(v *visit, act string, do func(ctx context.Context, name, by string) error) error {
	name := v.PathValue("name")
	return c.audited(v, act, name, "", func() error { return do(v.Context(), name, v.person.ID) })
}

func (c *Console) drain(v *visit) error   { return c.nodeBy(v, "node.drain", c.deps.Nodes.Drain) }
func (c *Console) undrain(v *visit) error { return c.nodeBy(v, "node.resume", c.deps.Nodes.Resume) }
func (c *Console) forget(v *visit) error  { return c.nodeBy(v, "node.forget", c.deps.Nodes.Forget) }

func (c *Console) drainNode(w http.ResponseWriter, v *visit) {
	c.done(w, v, c.drain(v), "said.drained", "/nodes")
}

func (c *Console) resumeNode(w http.ResponseWriter, v *visit) {
	c.done(w, v, c.undrain(v), "said.undrained", "/nodes")
}

func (c *Console) forgetNode(w http.ResponseWriter, v *visit) {
	c.done(w, v, c.forget(v), "said.forgotten", "/nodes")
}

func (c *Console) apiNodes(w http.ResponseWriter, v *visit) {
	nodes, err := c.deps.Nodes.List(v.Context())
	c.json(w, list(nodes), err)
}

func (c *Console) apiDrainNode(w http.ResponseWriter, v *visit)  { c.json(w, nil, c.drain(v)) }
func (c *Console) apiResumeNode(w http.ResponseWriter, v *visit) { c.json(w, nil, c.undrain(v)) }
func (c *Console) apiForgetNode(w http.ResponseWriter, v *visit) { c.json(w, nil, c.forget(v)) }
