package media

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hotline12345/gateway/internal/call/g711"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

func TestPorts(t *testing.T) {
	cfg := Defaults()
	cfg.PortMin, cfg.PortMax = 20001, 20008 // three pairs: 20002, 20004, 20006
	bubble(t, cfg, func(t *testing.T, e *Engine, n *memNet) {
		var s []*Session
		var ports []int
		for range 3 {
			x := session(t, e, SessionOptions{})
			s, ports = append(s, x), append(ports, x.LocalPort())
		}
		if sorted := slices.Sorted(slices.Values(ports)); !cmp.Equal(sorted, []int{20002, 20004, 20006}) {
			t.Fatalf("ports %v", sorted)
		}
		if _, err := e.NewSession(SessionOptions{}); !errors.Is(err, ErrNoPorts) {
			t.Errorf("an empty pool: %v", err)
		}
		if testutil.ToFloat64(e.metrics.noPorts) != 1 || testutil.ToFloat64(e.metrics.portsFree) != 0 {
			t.Error("the metrics do not tell")
		}
		p := n.phone(t).join(s[0])
		p.say([]byte{1})
		synctest.Wait()
		s[0].Close()
		s[0].Close()
		if _, err := e.NewSession(SessionOptions{}); !errors.Is(err, ErrNoPorts) {
			t.Errorf("a port was used again at once: %v", err)
		}
		s[2].Close()
		s[1].Close()
		for _, want := range []int{ports[2], ports[1]} { // no RTP came: at once, oldest first
			if got := session(t, e, SessionOptions{}).LocalPort(); got != want {
				t.Errorf("port %d, want %d", got, want)
			}
		}
		time.Sleep(coolDown)
		if got := session(t, e, SessionOptions{}).LocalPort(); got != ports[0] {
			t.Errorf("port %d, want %d", got, ports[0])
		}
	})
}

// A port that another program holds is stepped over.
func TestPortTaken(t *testing.T) {
	held := listenAny(t)
	defer held.Close()
	port := held.LocalAddr().(*net.UDPAddr).Port &^ 1
	cfg := Defaults()
	cfg.PortMin, cfg.PortMax = port, port+1
	e := run(t, cfg, Deps{})
	if _, err := e.NewSession(SessionOptions{}); !errors.Is(err, ErrNoPorts) {
		t.Errorf("a held port: %v", err)
	}
	if got := e.ports.size(); got != 1 {
		t.Errorf("%d pairs are left in the pool", got)
	}
}

func TestConfig(t *testing.T) {
	good := Defaults()
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	bad := Config{AdvertiseIP: netip.IPv4Unspecified(), PortMin: 80, PortMax: 70000, InitialTimeout: -1, Timeout: -1, DSCP: 64, ReceiveBuffer: -1}
	err := bad.Validate()
	for _, path := range []string{"ip: ", "advertise_ip: ", "port_min: ", "initial_timeout: ", "timeout: ", "dscp: ", "receive_buffer: "} {
		if !strings.Contains("\n"+err.Error(), "\n"+path) {
			t.Errorf("nothing is said of %s", path)
		}
	}
	if _, err := New(bad, Deps{}); err == nil {
		t.Error("a bad configuration was taken")
	}
	narrow := Defaults()
	narrow.PortMin, narrow.PortMax, narrow.IP = 20001, 20001, netip.IPv4Unspecified()
	if err := narrow.Validate(); err == nil || !strings.Contains(err.Error(), "port_max: ") || !strings.Contains(err.Error(), "advertise_ip: ") {
		t.Errorf("%v", err)
	}
	narrow = Defaults()
	narrow.AdvertiseIP = netip.MustParseAddr("203.0.113.5")
	e, err := New(narrow, Deps{})
	if err != nil || e.AdvertiseIP() != narrow.AdvertiseIP {
		t.Errorf("%v", err)
	}
}

func TestMetricsAreWellNamed(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	if _, err := New(Defaults(), Deps{Registerer: reg}); err != nil {
		t.Fatal(err)
	}
	problems, err := testutil.GatherAndLint(reg)
	if err != nil || len(problems) > 0 {
		t.Errorf("%v %v", err, []promlint.Problem(problems))
	}
}

func TestEngineEndsEverySession(t *testing.T) {
	e, err := New(testConfig(), Deps{})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	ctx, cancel := contextOf(t)
	go func() { ended <- e.Run(ctx) }()
	s, err := e.NewSession(SessionOptions{ID: "a"})
	if err != nil {
		t.Fatal(err)
	}
	sink := new(ear)
	if _, err := s.Tap(sink); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if !s.isClosed() || sink.closed != 1 {
		t.Error("something is left")
	}
	if _, err := e.NewSession(SessionOptions{}); !errors.Is(err, ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
}

// tickFunc is a ticker of a test.
type tickFunc struct{ f func(time.Time) }

func (t *tickFunc) tick(due time.Time, _ *outbox) { t.f(due) }

// After a short stall the wheel makes good what it owes, after a long one it skips whole turns; it keeps its
// phase. A ticker that panics leaves.
func TestWheelAfterAStall(t *testing.T) {
	t.Run("short", func(t *testing.T) { wheelAfterAStall(t, catchUpMost-slotEvery, 0) })
	t.Run("long", func(t *testing.T) { wheelAfterAStall(t, catchUpMost+2*tickEvery, 11) })
}

func wheelAfterAStall(t *testing.T, stall time.Duration, skipped int) {
	synctest.Test(t, func(t *testing.T) {
		m := newMetrics(nil)
		e, err := New(testConfig(), Deps{})
		if err != nil {
			t.Fatal(err)
		}
		w := newWheel(e.log, m)
		ctx, cancel := contextOf(t)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			w.run(ctx)
		}()
		time.Sleep(time.Minute) // an idle wheel stands still, and that is no stall
		var due, at []time.Time
		w.add(&tickFunc{func(d time.Time) {
			due, at = append(due, d), append(at, time.Now())
			if len(due) == 10 {
				time.Sleep(stall)
			}
		}})
		w.add(&tickFunc{func(time.Time) { panic("a bad ticker") }})
		time.Sleep(time.Second)
		cancel()
		<-ended
		for i := 1; i < len(due); i++ {
			want := tickEvery
			if i == 10 {
				want += time.Duration(skipped) * tickEvery
			}
			if step := due[i].Sub(due[i-1]); step != want {
				t.Errorf("tick %d is due %s after the last, want %s", i, step, want)
			}
			if late := at[i].Sub(due[i]); late < 0 || late > max(0, due[9].Add(stall).Sub(due[i])) {
				t.Errorf("tick %d is %s late", i, late)
			}
		}
		if got := testutil.ToFloat64(m.skipped); got != float64(skipped) || testutil.ToFloat64(m.panics) != 1 {
			t.Errorf("skipped %v, want %d; panics %v", got, skipped, testutil.ToFloat64(m.panics))
		}
	})
}

func TestJitter(t *testing.T) {
	put := func(j *jitter, seq int, v int16) {
		body := make([]byte, frame)
		fill(body, g711.EncodeULaw(v))
		j.put(header{seq: uint16(seq), ts: uint32(seq) * frame, ssrc: 1}, uLaw, body)
	}
	t.Run("lost, late and out of order", func(t *testing.T) {
		j := new(jitter)
		var pcm [frame]int32
		if j.get(&pcm) {
			t.Error("an empty buffer gives")
		}
		for _, seq := range []int{0, 1, 3, 2, 5} {
			put(j, seq, int16(1000*(seq+1)))
		}
		var got []int
		for j.get(&pcm) {
			got = append(got, int(pcm[0]+500)/1000)
		}
		if want := []int{0, 0, 1, 2, 3, 4, 4, 6}; !cmp.Equal(got, want) { // 40 ms of delay first; the fifth is lost
			t.Errorf("%v, want %v", got, want)
		}
		put(j, 4, 30000)
		if j.get(&pcm) {
			t.Error("what came too late is heard")
		}
	})
	t.Run("what is lost fades", func(t *testing.T) {
		j := new(jitter)
		var pcm [frame]int32
		put(j, 0, 8000)
		put(j, 5, 8000)
		var got []int
		for j.get(&pcm) {
			got = append(got, int(pcm[frame-1]+500)/1000)
		}
		if want := []int{0, 0, 8, 5, 3, 0, 0, 8}; !cmp.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	})
	t.Run("running dry deepens, calm makes shallow", func(t *testing.T) {
		j := new(jitter)
		var pcm [frame]int32
		seq := 0
		for range 20 {
			put(j, seq, 1000)
			seq++
			for j.get(&pcm) {
			}
		}
		if j.depth != jitterMax {
			t.Errorf("depth %d after many droughts", j.depth)
		}
		for range 10 * jitterCalm {
			put(j, seq, 1000)
			seq++
			j.get(&pcm)
		}
		if j.depth != jitterMin {
			t.Errorf("depth %d after a calm time", j.depth)
		}
		if left := distance(j.head, j.play); left > jitterMin+3*frame {
			t.Errorf("a delay of %d samples is left", left)
		}
	})
	t.Run("a flood and a far jump are bounded", func(t *testing.T) {
		j := new(jitter)
		for seq := range 10000 {
			put(j, seq, 1000)
		}
		put(j, 1<<20, 1000)
		if left := distance(j.head, j.play); left > jitterSamples {
			t.Errorf("%d samples", left)
		}
	})
}

func TestIPv6(t *testing.T) {
	conn, err := net.ListenPacket("udp6", "[::1]:0")
	if err != nil {
		t.Skip("no IPv6 on this machine: ", err)
	}
	cfg := testConfig()
	cfg.IP = netip.IPv6Loopback()
	s := session(t, run(t, cfg, Deps{}), SessionOptions{ID: "a"})
	p := newPhone(t, conn).join(s)
	p.to = net.UDPAddrFromAddrPort(netip.AddrPortFrom(cfg.IP, uint16(s.LocalPort())))
	p.say(tone(aLaw, 440, 0, frame))
	p.await("silence", func(got []packet) bool { return len(got) > 2 })
	if st := s.Stats(); st.Received != 1 || st.Sent < 3 {
		t.Errorf("stats %+v", st)
	}
}
