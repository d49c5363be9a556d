package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/hotline12345/gateway/internal/asterisk/asterisktest"
	"github.com/hotline12345/gateway/internal/journal"
	"github.com/hotline12345/gateway/queue"
)

// TestAsteriskCut cuts the gateway off from its Asterisk for a while, requests and events, under a load of calls: each
// call is in the books with an end that is known, those who stayed are served on, and Asterisk has no channel left.
// It is no part of the ordinary run: there internal/asterisk cuts the events of a few calls.
func TestAsteriskCut(t *testing.T) {
	if !inFull() {
		t.Skip("cuts under load for 10 s; HOTLINE_SOAK=1 runs it")
	}
	const agents, rate, cut, around = 4, 20, 10 * time.Second, 10 * time.Second
	ast := asterisktest.Start(t, "node1", "127.0.0.1:9")
	astPhones(t, ast, agents)
	ari, err := url.Parse(ast.URL)
	if err != nil {
		t.Fatal(err)
	}
	cable := asterisktest.NewCable(t, ari.Host)
	g := newGateway(t, append(astSets(t, ast, "http://"+cable.Addr+"/ari"), "asterisk.lost_after=30s", "ivr.flows="+toQueue(t), "ivr.default=queue")...)
	people(t, g, 2001, agents)
	g.start()
	until(t, 20*time.Second, "the gateway is connected", func() bool { return metric(t, g, "hotline_ari_connected") == "1" })
	g.carriers = netip.MustParseAddrPort(ast.SIP)
	g.phones = g.carriers
	c := newCrowd(t)
	for n := range agents {
		id := strconv.Itoa(2001 + n)
		g.people[id] = credentials{secret: ast.Secret}
		talk := 2 * time.Second
		if n < 2 {
			talk = cut + around // whoever is with these when it is cut is with them still when it is over
		}
		if status := c.desk(id, g, func() time.Duration { return talk }).register(600); status != http.StatusOK {
			t.Fatalf("REGISTER of %s: %d", id, status)
		}
		g.login(id)
		g.awaitAgent(id, queue.Idle)
	}
	l := &cutLoad{t: t, g: g, c: c, ari: ari, secret: ast.Secret, user: ast.User, patient: cut + 4*time.Second}
	l.run(rate, around)
	gone := time.Now()
	cable.Cut(true)
	l.run(rate, cut)
	cable.Cut(false)
	back := time.Now()
	l.run(rate, around)
	l.leave()
	for n := range agents {
		g.awaitAgent(strconv.Itoa(2001+n), queue.Idle)
	}
	g.stop()
	l.judge(gone, back, rate)
}

// cutLoad is callers of an Asterisk whose gateway is cut off meanwhile.
type cutLoad struct {
	t            *testing.T
	g            *gateway
	c            *crowd
	ari          *url.URL
	user, secret string
	patient      time.Duration // how long each third caller waits
	visits       []*visit
}

// run lets so many call in a second, each third of them patient.
func (l *cutLoad) run(rate int, length time.Duration) {
	pace := time.NewTicker(time.Second / time.Duration(rate))
	defer pace.Stop()
	for range int(length.Seconds() * float64(rate)) {
		<-pace.C
		n := len(l.visits)
		v := &visit{number: fmt.Sprintf("1361234%04d", n), patience: 2 * time.Second, gateways: []*gateway{l.g}, speaks: n%3 == 0}
		if n%3 == 0 {
			v.patience = l.patient
		}
		l.visits = append(l.visits, l.c.dial(v))
	}
}

// leave waits until all is over, in the gateway and in Asterisk.
func (l *cutLoad) leave() {
	l.t.Helper()
	until(l.t, 90*time.Second, "all callers have left", func() bool {
		over := true
		l.c.look(func() {
			for _, v := range l.visits {
				over = over && !v.ended.IsZero()
			}
		})
		return over
	})
	until(l.t, 30*time.Second, "the gateway has no call left", func() bool { return len(l.g.calls()) == 0 })
	until(l.t, 30*time.Second, "Asterisk has no channel and no bridge left", func() bool {
		return l.list("/channels") == 0 && l.list("/bridges") == 0
	})
}

// judge compares the callers' books with the gateway's.
func (l *cutLoad) judge(gone, back time.Time, rate int) {
	l.t.Helper()
	books, rows := map[string][]journal.Row{}, l.g.books()
	ends := map[string]int{}
	for _, row := range rows {
		books[row.Masked] = append(books[row.Masked], row)
		ends[row.EndReason]++
		if row.Ended.IsZero() || !slices.Contains([]string{"caller", "agent", "signalling", "cancelled"}, row.EndReason) {
			l.t.Errorf("the call %s of %s ended by %q at %v", row.CallID, row.Masked, row.EndReason, row.Ended)
		}
	}
	var before, during, after, across, served, elsewhere int
	l.c.look(func() {
		for _, v := range l.visits {
			masked := v.number[:3] + "****" + v.number[7:]
			switch {
			case v.sent.Before(gone.Add(-time.Second)):
				before++
			case v.sent.Before(back.Add(time.Second)): // until the gateway is connected the dialplan may take them to its own queue
				during++
				elsewhere += btoi(len(books[masked]) == 0)
				continue
			default:
				after++
			}
			served += btoi(v.ring != nil)
			across += btoi(v.sent.Before(gone) && v.ended.After(back))
			if len(books[masked]) != 1 && !v.answered.IsZero() {
				l.t.Errorf("%s, sent %s, answered %s, ended %s by %s, is %d times in the books", v.number, v.sent.Format(clock), v.answered.Format(clock),
					v.ended.Format(clock), v.by, len(books[masked]))
			}
		}
	})
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "calls a second, cut for\t%d, %v\n", rate, back.Sub(gone).Round(time.Second/10))
	fmt.Fprintf(w, "calls before, during and after the cut\t%d, %d, %d\n", before, during, after)
	fmt.Fprintf(w, "that lasted through it\t%d\n", across)
	fmt.Fprintf(w, "of those during it, taken by the dialplan's own queue\t%d\n", elsewhere)
	fmt.Fprintf(w, "in the books, by their end\t%d: %v\n", len(rows), ends)
	fmt.Fprintf(w, "served by agents, of those before and after\t%d\n", served)
	_ = w.Flush()
	l.t.Logf("\n%s", b.String())
	if across == 0 || served == 0 {
		l.t.Error("nobody was there through the cut, or nobody was served")
	}
	l.c.noFaults()
}

// list is how many of a kind Asterisk has.
func (l *cutLoad) list(path string) int {
	l.t.Helper()
	req, err := http.NewRequestWithContext(l.t.Context(), http.MethodGet, l.ari.String()+path, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	req.SetBasicAuth(l.user, l.secret)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		l.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	var all []json.RawMessage
	if err := json.NewDecoder(res.Body).Decode(&all); err != nil {
		l.t.Fatal(err)
	}
	return len(all)
}

// books are all calls of a gateway that has stopped.
func (g *gateway) books() []journal.Row {
	g.t.Helper()
	cfg := journal.Defaults()
	cfg.Path = filepath.Join(g.data(), "journal.db")
	j, err := journal.New(cfg, journal.Deps{})
	if err != nil {
		g.t.Fatal(err)
	}
	defer func() { _ = j.Close() }()
	rows, err := j.CDRs(g.t.Context(), journal.Filter{Limit: 1000})
	if err != nil {
		g.t.Fatal(err)
	}
	return rows
}
