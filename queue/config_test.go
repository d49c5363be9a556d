package queue

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/session"
)

func TestValidate(t *testing.T) {
	if err := Defaults().Validate(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		want string
		mend func(*Config)
	}{
		{"queues: ", func(c *Config) { c.Queues = nil }},
		{"queues[0].name: ", func(c *Config) { c.Queues[0].Name = "Allgemein!" }},
		{"queues[1].name: ", func(c *Config) { c.Queues = append(c.Queues, c.Queues[0]) }},
		{"queues[0].display: ", func(c *Config) { c.Queues[0].Display.EN = "" }},
		{"queues[0].max_waiting: ", func(c *Config) { c.Queues[0].MaxWaiting = 0 }},
		{"queues[0].ring: ", func(c *Config) { c.Queues[0].Ring = time.Second }},
		{"queues[0].wrapup: ", func(c *Config) { c.Queues[0].Wrapup = -1 }},
		{"queues[0].max_wait: ", func(c *Config) { c.Queues[0].MaxWait, c.Queues[0].OverflowTo = 48*time.Hour, "x" }},
		{"queues[0].overflow_to: ", func(c *Config) { c.Queues[0].MaxWait = time.Minute }},
		{"queues[0].overflow_to: ", func(c *Config) { c.Queues[0].MaxWait, c.Queues[0].OverflowTo = time.Minute, "general" }},
		{"strategy: ", func(c *Config) { c.Strategy = "random" }},
		{"auto_pause_after: ", func(c *Config) { c.AutoPauseAfter = 0 }},
		{"redial_window: ", func(c *Config) { c.RedialWindow = -1 }},
		{"short_abandon: ", func(c *Config) { c.ShortAbandon = time.Hour }},
		{"store_timeout: ", func(c *Config) { c.StoreTimeout = 0 }},
		{"dead_after: ", func(c *Config) { c.DeadAfter = time.Second }},
	} {
		cfg := Defaults()
		c.mend(&cfg)
		if err := cfg.Validate(); err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("want %q, got %v", c.want, err)
		}
		if _, err := New(cfg, Deps{}); err == nil {
			t.Errorf("%q: New took it", c.want)
		}
	}
}

func TestNewAsksForItsDeps(t *testing.T) {
	if _, err := New(Defaults(), Deps{Node: "a node"}); err == nil {
		t.Error("New took a node's name with a space, and no store")
	}
}

func TestMetrics(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		reg := prometheus.NewPedanticRegistry()
		b.reg = reg
		n := b.node("n1")
		n.login("n1a", "general")
		caller := n.enter("c1")
		o := n.offer(caller)
		n.must(caller.Accept(t.Context(), o))
		_ = caller.Accept(t.Context(), session.Offer{Token: "stale"})
		n.must(caller.Complete(t.Context(), o, call.EndCaller))
		n.must(n.enter("c2").Leave(t.Context(), session.LeaveAbandon))
		n.enter("c3")
		n.await("all is counted", func() bool {
			m := n.metrics
			return count(m.offered.WithLabelValues("general")) == 3 &&
				count(m.exits.WithLabelValues("general", "answered")) == 1 &&
				count(m.exits.WithLabelValues("general", "short_abandon")) == 1 &&
				count(m.offers.WithLabelValues("general", "accept")) == 1 &&
				count(m.offers.WithLabelValues("general", "fenced")) == 1
		})
		n.measure(t.Context())
		for got, want := range map[prometheus.Collector]float64{
			n.metrics.waiting.WithLabelValues("general"):            1,
			n.metrics.agents.WithLabelValues("general", "wrapup"):   1,
			n.metrics.agents.WithLabelValues("road", "wrapup"):      0,
			n.metrics.stuck.WithLabelValues("talk"):                 0,
			n.metrics.exits.WithLabelValues("road", "node_lost"):    0,
			n.metrics.offers.WithLabelValues("general", "noanswer"): 0,
		} {
			if count(got) != want {
				t.Errorf("%v = %v, want %v", got, count(got), want)
			}
		}
		if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
			t.Errorf("promlint: %v %v", problems, err)
		}
	})
}

func count(c prometheus.Collector) float64 { return testutil.ToFloat64(c) }

func TestAStuckAgentIsSeen(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		n := b.node("n1")
		n.login("n1a", "general")
		caller := n.enter("c1")
		n.must(caller.Accept(t.Context(), n.offer(caller)))
		if n.agent("n1a").Stuck {
			t.Fatal("an agent in talk is stuck")
		}
		if err := b.store.Blocking().Del(t.Context(), prefix+":c:c1").Err(); err != nil {
			t.Fatal(err)
		}
		if !n.agent("n1a").Stuck {
			t.Fatal("an agent whose call is gone is not stuck")
		}
	})
}

func FuzzParseQueues(f *testing.F) {
	f.Add("city:1 road:2")
	f.Add(":: a:b  :9")
	f.Fuzz(func(t *testing.T, s string) {
		once := parseQueues(s)
		if twice := parseQueues(formatQueues(once)); !maps.Equal(once, twice) {
			t.Errorf("%q: %v, then %v", s, once, twice)
		}
	})
}
