package console

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/internal/store"
	"github.com/hotline12345/gateway/queue"
)

// owe fills the ledger of a world.
func (w *world) owe(now time.Time) {
	ago := func(m int) time.Time { return now.Add(-time.Duration(m) * time.Minute) }
	task := func(id, caller, why string, since, missed int) queue.CallBack {
		return queue.CallBack{ID: id, Queue: "general", Language: "zh", Caller: caller, CallID: "OLD", Why: why, Since: ago(since),
			Missed: missed, LastMissed: ago(min(since, 12)), State: "open"}
	}
	full := task("t4", "0571****3308", "full", 4, 1)
	full.Queue, full.Language = "enterprise", "en"
	lost := task("t3", "150****7788", "node_lost", 14, 1)
	lost.State, lost.By = "taken", "1002"
	tried := task("t2", "186****9090", "abandon", 48, 1)
	tried.Attempts, tried.LastTry, tried.NextTry, tried.LastResult = 1, ago(3), ago(-7), "noanswer"
	w.tasks = []queue.CallBack{lost, full, task("t1", "139****0021", "abandon", 96, 3), tried}

	reached := task("t5", "137****2210", "abandon", 200, 2)
	reached.State, reached.Attempts, reached.Ending, reached.By, reached.ClosedBy, reached.Closed = "closed", 1, "answered", "1001", "1001", ago(30)
	byHand := task("t6", "135****6601", "node_lost", 1700, 1)
	byHand.State, byHand.Ending, byHand.ClosedBy, byHand.Note, byHand.Closed = "closed", "dismissed", "chief", "reached: 已通过微信答复", ago(1500)
	unreached := task("t7", "177****4410", "full", 400, 1)
	unreached.State, unreached.Attempts, unreached.Ending, unreached.LastResult, unreached.Closed = "closed", 3, "unreached", "busy", ago(90)
	w.shut = []queue.CallBack{byHand, reached, unreached}
}

// join fills the cluster of a world.
func (w *world) join(now time.Time) {
	node := func(i int, alive bool) Node {
		return Node{Name: fmt.Sprintf("gw-%d", i), Version: "1.4.0", API: fmt.Sprintf("10.20.0.1%d:8790", i), SIP: fmt.Sprintf("10.20.0.1%d:5080", i),
			Started: now.Add(-50 * time.Hour), ConfigHash: "3f9c1d2e77aa", PolicyHash: "b0e4417d0c55", Calls: 40 * i, Seen: now, Alive: alive}
	}
	w.nodes = []Node{node(1, true), node(2, true), node(3, false), node(4, true)}
	w.nodes[0].Self, w.nodes[1].Draining, w.nodes[2].Seen = true, true, now.Add(-7*time.Minute)
	w.nodes[3].ConfigHash, w.nodes[3].Version = "90ab12cd34ef", "1.5.0"
	for i := range w.views {
		w.views[i].Gateway = fmt.Sprintf("gw-%d", 1+i%2)
	}
	for i := range w.trunks {
		w.trunks[i].Node = fmt.Sprintf("gw-%d", 1+i%2)
	}
}

// worldLedger is the call backs of a world.
type worldLedger struct{ *world }

func (l worldLedger) List(_ context.Context, closed bool) ([]queue.CallBack, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if closed {
		return slices.Clone(l.shut), l.away
	}
	return slices.Clone(l.tasks), l.away
}

func (l worldLedger) Call(_ context.Context, id, person string) (callID string, err error) {
	err = session.ErrNoTask
	l.change(func() {
		for i := range l.tasks {
			switch t := &l.tasks[i]; {
			case t.ID != id:
			case t.State == "taken":
				err = session.ErrTaskTaken
			default:
				t.State, t.By, err = "taken", person, nil
				l.views = append(l.views, session.View{CallID: "B1", Stage: session.StageRing, Since: time.Now(), Started: time.Now(),
					Trunk: "mobile", Caller: t.Caller, Identity: "verified", Queue: t.Queue, Agent: person, Gateway: "gw-1"})
			}
		}
	})
	return "B1", err
}

func (l worldLedger) Close(_ context.Context, id, person, why string) error {
	err := session.ErrNoTask
	l.change(func() {
		i := slices.IndexFunc(l.tasks, func(t queue.CallBack) bool { return t.ID == id })
		if i < 0 {
			return
		}
		t := l.tasks[i]
		t.State, t.Ending, t.ClosedBy, t.Note, t.Closed, err = "closed", "dismissed", person, why, time.Now(), nil
		l.tasks, l.shut = slices.Delete(l.tasks, i, i+1), append(l.shut, t)
	})
	return err
}

// worldNodes is the gateways of a world.
type worldNodes struct{ *world }

var errLinkDown = errors.New("dial: no route")

func (n worldNodes) List(context.Context) ([]Node, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.nodes), n.away
}

func (n worldNodes) act(name string, do func(i int) error) error {
	err := fmt.Errorf("node %s: %w", name, store.ErrNodeUnknown)
	n.change(func() {
		if i := slices.IndexFunc(n.nodes, func(o Node) bool { return o.Name == name }); i >= 0 {
			err = do(i)
		}
	})
	return err
}

func (n worldNodes) drain(name string, draining bool) error {
	return n.act(name, func(i int) error {
		if !n.nodes[i].Alive {
			return fmt.Errorf("%w: %w", ErrNodeAway, errLinkDown)
		}
		n.nodes[i].Draining = draining
		return nil
	})
}

func (n worldNodes) Drain(_ context.Context, name, _ string) error  { return n.drain(name, true) }
func (n worldNodes) Resume(_ context.Context, name, _ string) error { return n.drain(name, false) }

func (n worldNodes) Forget(_ context.Context, name, _ string) error {
	return n.act(name, func(i int) error {
		if n.nodes[i].Alive {
			return store.ErrNodeAlive
		}
		n.nodes = slices.Delete(n.nodes, i, i+1)
		return nil
	})
}
