package trunk

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/hotline12345/gateway/internal/call"
)

func TestMatchLongestPrefix(t *testing.T) {
	s, err := NewSet([]Config{
		{Name: "wide", Sources: []string{"10.0.0.0/8", "2001:db8::/32"}, Identity: ByPAI},
		{Name: "narrow", Sources: []string{"10.1.2.0/24"}, Identity: ByFrom},
		{Name: "host", Sources: []string{"10.1.2.3"}, Identity: ByNone, Address: "198.51.100.7:5060"},
	}, hangzhou(t), slog.New(slog.DiscardHandler), prometheus.NewPedanticRegistry())
	if err != nil {
		t.Fatal(err)
	}
	for a, want := range map[string]string{
		"10.9.9.9": "wide", "10.1.2.9": "narrow", "10.1.2.3": "host", "::ffff:10.1.2.3": "host",
		"2001:db8::5": "wide", "192.0.2.1": "",
	} {
		got := ""
		if tr, ok := s.Match(netip.MustParseAddr(a)); ok {
			got = tr.Name
		}
		if got != want || s.Known(netip.MustParseAddr(a)) != (want != "") {
			t.Errorf("%s: %q, want %q", a, got, want)
		}
	}
	far := netip.MustParseAddr("198.51.100.7")
	if _, ok := s.Match(far); ok || !s.Known(far) {
		t.Error("where calls are sent to is not heard, or is a source of calls")
	}
	if _, ok := s.Get("narrow"); !ok {
		t.Error("no trunk by name")
	}
	if _, ok := s.Get("none"); ok {
		t.Error("a trunk by a name that is none")
	}
}

func TestRoute(t *testing.T) {
	open := one(t, Config{Identity: ByFrom})
	closed := one(t, Config{Identity: ByFrom, Numbers: []string{"12345", "0571-88880001"}})
	for _, c := range []struct {
		tr           *Trunk
		user, called string
		ok           bool
	}{
		{open, "12345", "12345", true},
		{open, "+8657112345", "12345", true},
		{open, "057188880000", "0571-88880000", true},
		{open, "999", "999", true},
		{open, "", "", false},
		{closed, "8657112345", "12345", true},
		{closed, "88880001", "0571-88880001", true},
		{closed, "88880002", "", false},
		{closed, "alice", "", false},
	} {
		if called, ok := c.tr.Route(c.user); called != c.called || ok != c.ok {
			t.Errorf("Route(%q) = %q, %v", c.user, called, ok)
		}
	}
}

func TestCapKeepsLegsForEmergencies(t *testing.T) {
	for _, c := range []struct{ limit, ordinary int }{{5, 1}, {10, 6}, {40, 36}, {100, 90}, {101, 90}} {
		c2 := NewCap(c.limit)
		counts := map[Grant]int{}
		for range c.limit + 1 {
			counts[c2.Take(false)]++
		}
		if counts[Ordinary] != c.ordinary || counts[Kept] != c.limit-c.ordinary || counts[Refused] != 1 {
			t.Errorf("cap %d: %v", c.limit, counts)
		}
		if c2.Take(true) != Ordinary || c2.InUse() != c.limit+1 {
			t.Errorf("cap %d: a forced call did not pass", c.limit)
		}
		c2.Release()
		c2.Release()
		if c2.Take(false) != Kept {
			t.Errorf("cap %d: a place given back is not kept", c.limit)
		}
	}
}

func TestTakeCountsChannels(t *testing.T) {
	tr := one(t, Config{Identity: ByFrom, MaxCalls: 5})
	_, release := tr.Take(call.Incoming, false)
	if n := testutil.ToFloat64(tr.metrics.channels.WithLabelValues("t", "incoming")); n != 1 || tr.InUse() != 1 {
		t.Errorf("channels: %v", n)
	}
	release()
	release()
	if tr.InUse() != 0 {
		t.Error("a place was given back twice")
	}
}

func TestHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := one(t, Config{Identity: ByFrom, Address: "127.0.0.1:9", OptionsInterval: 10 * time.Second})
		s := &Set{trunks: []*Trunk{tr}, log: slog.New(slog.DiscardHandler)}
		answers := make(chan int)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			done <- s.Run(ctx, func(ctx context.Context, _ *Trunk) (int, error) {
				time.Sleep(20 * time.Millisecond)
				select {
				case a := <-answers:
					return a, nil
				case <-ctx.Done():
					return 0, ctx.Err()
				}
			})
		}()
		if tr.Health().State != Unknown {
			t.Error("a state before the first answer")
		}
		step := func(status int, want State) {
			t.Helper()
			if status > 0 {
				answers <- status
			} else {
				time.Sleep(10*time.Second + pingTimeout)
			}
			synctest.Wait()
			if got := tr.Health(); got.State != want {
				t.Errorf("after %d: %+v, want %s", status, got, want)
			}
		}
		step(200, Up)
		if rtt := tr.Health().RTT; rtt != 20*time.Millisecond {
			t.Errorf("round trip: %v", rtt)
		}
		step(404, Up)
		step(503, Down) // it says itself that it takes no calls
		step(200, Up)
		step(408, Up) // one may get lost
		step(408, Down)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestGate(t *testing.T) {
	unknown, over := prometheus.NewCounter(prometheus.CounterOpts{Name: "a"}), prometheus.NewCounter(prometheus.CounterOpts{Name: "b"})
	synctest.Test(t, func(t *testing.T) {
		known := func(a netip.Addr) bool { return a.IsLoopback() }
		g := NewGate(known, RateConfig{Messages: 2, Burst: 3}, unknown, over)
		from := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 5070}
		for i := range 3 {
			if g.Drop(nil, from, "UDP") {
				t.Errorf("message %d of the burst was dropped", i)
			}
		}
		if !g.Drop(nil, from, "UDP") || g.Drop(nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 2)}, "udp") {
			t.Error("the rate is not a source's own")
		}
		if g.Drop(nil, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}, "TCP") {
			t.Error("a piece of a stream was dropped")
		}
		if !g.Drop(nil, &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1)}, "UDP") || !g.Drop(nil, nil, "UDP") {
			t.Error("an unknown source got in")
		}
		time.Sleep(time.Second)
		if g.Drop(nil, from, "UDP") {
			t.Error("the rate did not come back")
		}
		for i := range uint32(3 * maxSources) {
			g.Drop(nil, &net.UDPAddr{IP: net.IPv4(127, byte(1+i>>16), byte(i>>8), byte(i))}, "UDP")
		}
		if n := len(g.cur) + len(g.prev); n > 2*maxSources {
			t.Errorf("%d sources are remembered", n)
		}
	})
	if testutil.ToFloat64(unknown) != 2 || testutil.ToFloat64(over) != 1 {
		t.Errorf("counted: %v unknown, %v over", testutil.ToFloat64(unknown), testutil.ToFloat64(over))
	}
}

func TestGateListener(t *testing.T) {
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: "a"})
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	known := make(chan bool, 2)
	known <- false
	known <- true
	l := NewGate(func(netip.Addr) bool { return <-known }, RateConfig{Messages: 100, Burst: 100}, c, c).Listener(inner)
	defer func() { _ = l.Close() }()
	refused, err := net.Dial("tcp", inner.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	taken, err := net.Dial("tcp", inner.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := refused.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the unknown connection: %v", err)
	}
	_, _ = taken.Write([]byte("x"))
	if n, err := conn.Read(make([]byte, 1)); n != 1 || err != nil {
		t.Errorf("the known connection: %d, %v", n, err)
	}
	if testutil.ToFloat64(c) != 1 {
		t.Error("the unknown connection was not counted")
	}
}

func TestValidate(t *testing.T) {
	err := Validate([]Config{
		{Name: "a", Sources: []string{"10.0.0.0/33", "nowhere"}, Identity: "perhaps", Address: "host", Transport: "sctp"},
		{Name: "a b", Identity: ByPAI, MaxCalls: 4, OptionsInterval: time.Second},
		{Name: "a", Sources: []string{"10.0.0.0/8"}, Identity: ByPAI},
		{Name: "c", Sources: []string{"10.0.0.0/8"}, Identity: ByPAI},
	})
	for _, want := range []string{
		`trunks[0].sources[0]: "10.0.0.0/33" is not a CIDR; write it as 10.0.0.0/24`,
		`trunks[0].sources[1]: "nowhere" is not a CIDR`,
		`trunks[0].address: "host" is not host:port`,
		`trunks[0].transport: "sctp" is unknown`,
		`trunks[0].identity: "perhaps" is unknown`,
		`trunks[1].name: "a b" is no name`,
		`trunks[1].sources: is empty`,
		`trunks[1].max_calls: 4 leaves no call beside the 4 legs`,
		`trunks[1].options_interval: 1s is too short`,
		`trunks[1].options_interval: needs an address`,
		`trunks[2].name: "a" is the name of trunks[0] too`,
		`trunks[3].sources[0]: 10.0.0.0/8 belongs to trunk "a" already`,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in\n%v", want, err)
		}
	}
	if err := Validate([]Config{Loopback()}); err != nil {
		t.Error(err)
	}
	for _, bad := range []Config{{Shared: []string{"x"}}, {Shared: []string{"05*"}}, {Numbers: []string{"x"}}} {
		bad.Name, bad.Sources, bad.Identity = "t", []string{"10.0.0.0/8"}, ByPAI
		if _, err := NewSet([]Config{bad}, hangzhou(t), nil, nil); err == nil || !strings.HasPrefix(err.Error(), "trunks[0].") {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

func TestResultOf(t *testing.T) {
	for status, want := range map[int]Result{200: Answered, 486: Busy, 600: Busy, 408: NoAnswer, 480: NoAnswer,
		487: Cancelled, 403: Rejected, 603: Rejected, 500: Failed, 0: Failed} {
		if got := ResultOf(status); got != want {
			t.Errorf("%d: %s", status, got)
		}
	}
}
