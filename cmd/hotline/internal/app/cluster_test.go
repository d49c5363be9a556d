package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hotline12345/gateway/cmd/hotline/internal/config"
	"github.com/hotline12345/gateway/cmd/hotline/internal/console"
	"github.com/hotline12345/gateway/internal/audit"
	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/internal/store"
	"github.com/hotline12345/gateway/internal/store/storetest"
)

// cluster starts gateways of one cluster on one Redis. They run until the test ends, or their stop is called.
type cluster struct {
	t      *testing.T
	redis  *storetest.Redis
	secret string
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{t: t, redis: storetest.Start(t), secret: filepath.Join(t.TempDir(), "secret")}
	if err := os.WriteFile(c.secret, []byte("0123456789abcdef0123456789abcdef"), 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *cluster) start(name string) (a *App, stop func()) {
	c.t.Helper()
	a, stop, err := c.begin(name, c.t.TempDir())
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(stop)
	return a, stop
}

func (c *cluster) begin(name, data string) (a *App, stop func(), err error) {
	cfg, err := config.Load("", []string{"data=" + data, "session.node=" + name,
		"sip.carriers.listen=127.0.0.1:0", "sip.phones.listen=127.0.0.1:0", "http.listen=127.0.0.1:0",
		"store.addrs=[" + c.redis.Addr + "]", "store.timeout=250ms",
		"nodes.secret_file=" + c.secret, "nodes.listen=127.0.0.1:0", "sip.nodes.listen=127.0.0.1:0"})
	if err != nil {
		return nil, nil, err
	}
	if a, err = New(c.t.Context(), cfg, slog.New(slog.DiscardHandler)); err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	return a, sync.OnceFunc(func() {
		cancel()
		a.EndNow()
		if err := <-ended; err != nil {
			c.t.Errorf("%s: %v", name, err)
		}
	}), nil
}

func soon(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for !is() {
		select {
		case <-deadline:
			t.Fatal("never: " + what)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (a *App) isReady(ctx context.Context) bool {
	for _, s := range a.health.States(ctx) {
		if s.Code == "draining" {
			return s.OK
		}
	}
	return false
}

// A call stands at one gateway, and is seen and acted on at another.
func TestCallOfAnotherGateway(t *testing.T) {
	c := newCluster(t)
	one, _ := c.start("n1")
	two, stopTwo := c.start("n2")
	if len(one.Newcomers) == 0 || len(two.Newcomers) != 0 {
		t.Fatalf("n1 made %d people and n2 %d; one gateway makes them", len(one.Newcomers), len(two.Newcomers))
	}
	soon(t, "n2 has the people of n1", func() bool {
		people, err := two.staff.People(t.Context())
		return err == nil && len(people) == len(one.Newcomers)
	})
	soon(t, "n1 knows n2", func() bool { return slices.Equal(one.cluster.Peers(), []string{"n2"}) })

	id := callIn(t, two)
	here := everyCall{one.calls, one.mirror}
	soon(t, "n1 shows the call of n2", func() bool {
		return slices.ContainsFunc(here.Views(), func(v session.View) bool { return v.CallID == id && v.Gateway == "n2" })
	})
	if trunks, err := (everyTrunk{one}).Trunks(t.Context()); err != nil || trunks[0].Node != "n1" {
		t.Errorf("trunks %+v, %v", trunks, err)
	}
	soon(t, "n1 shows the trunk of n2", func() bool {
		trunks, err := everyTrunk{one}.Trunks(t.Context())
		return err == nil && slices.ContainsFunc(trunks, func(t console.Trunk) bool { return t.Node == "n2" })
	})
	desk := everyDesk{callDesk{one.calls, one.queue}, one}
	if err := desk.SetFacts(t.Context(), id, "1001", session.Facts{Outcome: session.OutcomeRegistered}); !errors.Is(err, session.ErrNotYours) {
		t.Errorf("facts of another's call: %v", err)
	}
	if err := desk.Hangup(t.Context(), id, "admin"); err != nil {
		t.Errorf("hang up: %v", err)
	}
	if err := desk.Hangup(t.Context(), "01J0000000000000000000000", "admin"); !errors.Is(err, session.ErrNoCall) {
		t.Errorf("hang up a call that is nowhere: %v", err)
	}
	soon(t, "the call has its record", func() bool { _, err := two.journal.Call(t.Context(), id); return err == nil })
	row, err := everyJournal{one}.Call(t.Context(), id)
	if err != nil || row.Node != "n2" {
		t.Errorf("the record at n1 is %+v, %v", row, err)
	}
	if entries, err := (everyJournal{one}).Timeline(t.Context(), id); err != nil || len(entries) == 0 {
		t.Errorf("the timeline at n1 has %d entries, %v", len(entries), err)
	}
	told(t, one.audit, "call.hangup", "asked_of", "n2")
	told(t, two.audit, "call.hangup", "asked_by", "n1")

	stopTwo()
	soon(t, "n1 misses n2", func() bool { return len(one.missing()) == 1 && strings.Contains(one.missing()[0], "n2") })
	if rows, missing, err := everyRow(t.Context(), one, "/cdrs", one.cdrs); err != nil || len(rows) != 0 || len(missing) != 1 {
		t.Errorf("%d rows, missing %v, %v", len(rows), missing, err)
	}
	if err := (everyNode{one}).Drain(t.Context(), "n2", "admin"); !errors.Is(err, console.ErrNodeAway) {
		t.Errorf("drain a gateway that is gone: %v", err)
	}
	if err := (everyNode{one}).Forget(t.Context(), "n1", "admin"); !errors.Is(err, store.ErrNodeAlive) {
		t.Errorf("forget a gateway that lives: %v", err)
	}
	soon(t, "n2 can be forgotten", func() bool { return everyNode{one}.Forget(t.Context(), "n2", "admin") == nil })
	soon(t, "n2 is off the list", func() bool { _, ok := one.cluster.Member("n2"); return !ok })
}

// told fails the test unless the audit log has an act with a detail.
func told(t *testing.T, log *audit.Log, act, key, value string) {
	t.Helper()
	for rec, err := range audit.Records(log.Dir(), log.Node()) {
		if err != nil {
			t.Fatal(err)
		}
		if rec.Act == act && rec.Detail[key] == value {
			return
		}
	}
	t.Errorf("the audit log of %s has no %s with %s=%s", log.Node(), act, key, value)
}

func TestDrainByOrder(t *testing.T) {
	c := newCluster(t)
	one, _ := c.start("n1")
	two, _ := c.start("n2")
	soon(t, "n1 knows n2", func() bool { return len(one.cluster.Peers()) == 1 })
	id := callIn(t, two)
	nodes := everyNode{one}
	if err := nodes.Drain(t.Context(), "n2", "admin"); err != nil {
		t.Fatal(err)
	}
	soon(t, "n2 is not ready", func() bool { return !two.isReady(t.Context()) })
	soon(t, "n1 sees n2 drain", func() bool { n, _ := one.cluster.Member("n2"); return n.Draining && n.Alive })
	if _, err := dialIn(t, two); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("a new call to a gateway that drains: %v", err)
	}
	if _, live := two.live(id); !live {
		t.Error("the drain ended a call")
	}
	told(t, two.audit, "node.drain", "asked_by", "n1")
	if err := nodes.Resume(t.Context(), "n2", "admin"); err != nil {
		t.Fatal(err)
	}
	if _, err := dialIn(t, two); err != nil {
		t.Errorf("a new call after the drain: %v", err)
	}
	if err := nodes.Drain(t.Context(), "n9", "admin"); !errors.Is(err, store.ErrNodeUnknown) {
		t.Errorf("drain what is no gateway: %v", err)
	}
}

// One gateway of an empty cluster makes the people, however many start at once.
func TestOneGatewayMakesThePeople(t *testing.T) {
	c := newCluster(t)
	all := make([]*App, 3)
	var g errgroup.Group
	for i := range all {
		data := t.TempDir()
		g.Go(func() error {
			a, stop, err := c.begin(fmt.Sprintf("n%d", i+1), data)
			if err == nil {
				t.Cleanup(stop)
			}
			all[i] = a
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	makers := 0
	for _, a := range all {
		if len(a.Newcomers) > 0 {
			makers++
		}
	}
	if makers != 1 {
		t.Errorf("%d gateways made people", makers)
	}
	for _, a := range all {
		soon(t, "everyone has them", func() bool {
			people, err := a.staff.People(t.Context())
			return err == nil && len(people) == 4
		})
	}
}
