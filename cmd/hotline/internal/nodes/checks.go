package nodes

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hotline12345/gateway/cmd/hotline/internal/ops"
	"github.com/hotline12345/gateway/internal/store"
)

// compared is what all gateways should have alike.
var compared = map[string]func(store.Node) string{
	"config":  func(n store.Node) string { return n.ConfigHash },
	"policy":  func(n store.Node) string { return n.PolicyHash },
	"version": func(n store.Node) string { return n.Version },
}

// Checks are what can be wrong between the gateways; none for one that stands alone.
func (c *Cluster) Checks() []ops.Check {
	if c.Alone() {
		return nil
	}
	return []ops.Check{
		{Code: "node-absent", Title: "A gateway of the cluster is absent", Mend: "Start it; if it is gone for good: hotline node forget NAME.",
			Test: c.others(func(_, n store.Node) string {
				if n.Alive {
					return ""
				}
				return "not seen for " + time.Since(n.Seen).Round(time.Second).String()
			})},
		{Code: "node-silent", Title: "A gateway lives and does not answer the others", Mend: "Open the way to its nodes.listen, and look at its clock and its nodes.secret_file; its calls are not shown here meanwhile.",
			Test: c.others(func(_, n store.Node) string { return c.silence(n) })},
		{Code: "config-differs", Title: "The gateways' configurations differ", Mend: "Give all the same configuration (hotline config effective shows each) and restart those that are behind.",
			Test: c.others(differs(compared["config"]))},
		{Code: "policy-differs", Title: "The gateways' policies of Article 29 differ", Mend: "Give all the same abuse.policy_file and restart those that are behind: callers must be judged alike.",
			Test: c.others(differs(compared["policy"]))},
		{Code: "version-beside", Title: "Gateways of different versions stand side by side", Mend: "Go on with the upgrade: drain, replace and resume one after the other.",
			Test: c.others(differs(compared["version"]))},
	}
}

// others makes a test of what is wrong with each of the other gateways, in words; "" is nothing.
func (c *Cluster) others(wrong func(self, n store.Node) string) func(context.Context) error {
	return func(context.Context) error {
		self, _ := c.Member(c.name)
		var found []string
		for _, n := range c.Members() {
			if n.Name == c.name {
				continue
			}
			if w := wrong(self, n); w != "" {
				found = append(found, n.Name+": "+w)
			}
		}
		if len(found) > 0 {
			return errors.New(strings.Join(found, "; "))
		}
		return nil
	}
}

func differs(of func(store.Node) string) func(self, n store.Node) string {
	return func(self, n store.Node) string {
		if !n.Alive || of(n) == of(self) {
			return ""
		}
		return fmt.Sprintf("%.12s, here %.12s", of(n), of(self))
	}
}

// silence is why a living gateway's answer failed the last time.
func (c *Cluster) silence(n store.Node) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.silent[n.Name]; n.Alive && err != nil {
		return err.Error()
	}
	return ""
}
