package registrar

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hotline12345/gateway/sip/siptest"
)

// office is a registrar of a node that shares its phones, running.
type office struct {
	*bench
	shared *Shared
}

func newOffice(t *testing.T, shelf Remote, node string) *office {
	t.Helper()
	b := &bench{t: t, store: NewMemory(100)}
	o := &office{b, NewShared(b.store, shelf, node, slog.New(slog.DiscardHandler))}
	r, err := New(Defaults(), Deps{Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewPedanticRegistry(),
		Credentials: people{}, Bindings: o.shared, Node: node,
		OnRegistered: func(e string) { b.events = append(b.events, "+"+e) },
		OnExpired:    func(e string) { b.events = append(b.events, "-"+e) }})
	if err != nil {
		t.Fatal(err)
	}
	b.Registrar = r
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- o.shared.Run(ctx) }()
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := errors.Join(<-done, <-done); err != nil {
			t.Error(err)
		}
	})
	return o
}

// sees checks where an extension's phones are, as the node knows: "node contact" each, in order.
func (o *office) sees(extension string, want ...string) {
	o.t.Helper()
	all, err := o.Lookup(o.t.Context(), extension)
	if err != nil {
		o.t.Fatal(err)
	}
	var got []string
	for _, b := range all {
		got = append(got, b.Node+" "+b.Contact)
	}
	if !slices.Equal(got, want) {
		o.t.Errorf("%s is at %q, want %q", extension, got, want)
	}
}

// settle lets everything that is on its way happen, and d pass.
func settle(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestSharedPhones(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shelf := siptest.NewShelf()
		a, b := newOffice(t, shelf, "a"), newOffice(t, shelf, "b")
		a.want(a.register("1001", "Contact: <sip:1001@127.0.0.1:7000>", "Expires: 300"), 200, "<sip:1001@127.0.0.1:7000>;expires=300")
		settle(time.Second)
		b.sees("1001", "a sip:1001@127.0.0.1:7000")
		// A second phone at the other node: each REGISTER is told of its own node's alone.
		b.want(b.register("1001", "Contact: <sip:1001@127.0.0.1:7001>", "Expires: 600"), 200, "<sip:1001@127.0.0.1:7001>;expires=600")
		settle(time.Second)
		a.sees("1001", "a sip:1001@127.0.0.1:7000", "b sip:1001@127.0.0.1:7001")
		b.sees("1001", "b sip:1001@127.0.0.1:7001", "a sip:1001@127.0.0.1:7000")
		if owners, err := b.Owners(t.Context(), "1001"); err != nil || !slices.Equal(owners, []string{"b", "a"}) {
			t.Errorf("owners: %v, %v", owners, err)
		}
		all, err := a.shared.List(t.Context())
		if err != nil || len(all) != 2 {
			t.Errorf("%v, %v", all, err)
		}
		// The first expires, and no node has it any more; the extension has a phone elsewhere.
		settle(5 * time.Minute)
		a.sees("1001", "b sip:1001@127.0.0.1:7001")
		b.sees("1001", "b sip:1001@127.0.0.1:7001")
		if a.Local("1001") || !b.Local("1001") || slices.Contains(a.events, "-1001") {
			t.Errorf("local at a: %t, at b: %t; a told %q", a.Local("1001"), b.Local("1001"), a.events)
		}
		b.want(b.register("1001", "Contact: *", "Expires: 0"), 200)
		settle(time.Second)
		a.sees("1001")
		if !slices.Equal(b.events, []string{"+1001", "-1001"}) {
			t.Errorf("b told %q", b.events)
		}
	})
}

// A phone that registers at two nodes is one phone, and neither REGISTER undoes the other.
func TestOnePhoneAtTwoNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shelf := siptest.NewShelf()
		a, b := newOffice(t, shelf, "a"), newOffice(t, shelf, "b")
		contact := `Contact: <sip:1001@127.0.0.1:7000>;+sip.instance="<urn:uuid:1>"`
		for range 3 {
			a.register("1001", contact)
			settle(time.Second)
			b.register("1001", contact)
			settle(time.Second)
		}
		a.sees("1001", "a sip:1001@127.0.0.1:7000", "b sip:1001@127.0.0.1:7000")
		all, err := a.Lookup(t.Context(), "1001")
		if err != nil || all[0].Phone() != all[1].Phone() || all[0].Phone() != "<urn:uuid:1>" {
			t.Errorf("%+v, %v", all, err)
		}
	})
}

func TestPhone(t *testing.T) {
	for contact, want := range map[string]string{
		"sip:1001@PC.local:7000;transport=tcp": "pc.local:7000",
		"sip:x@PC.local:7000":                  "pc.local:7000",
		"sip:1001@10.0.0.1":                    "10.0.0.1:5060",
		"no uri":                               "no uri",
	} {
		if got := (Binding{Contact: contact}).Phone(); got != want {
			t.Errorf("%s: %s, want %s", contact, got, want)
		}
	}
}

// While the store is away phones register and ring as before; what was last known of the others serves
// meanwhile, and everything is told when it is back.
func TestSharedStoreAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shelf := siptest.NewShelf()
		a, b := newOffice(t, shelf, "a"), newOffice(t, shelf, "b")
		a.register("1001", "Contact: <sip:1001@127.0.0.1:7000>", "Expires: 300")
		settle(time.Second)
		b.sees("1001", "a sip:1001@127.0.0.1:7000")
		shelf.Away(true)
		began := time.Now()
		b.want(b.register("1002", "Contact: <sip:1002@127.0.0.1:7002>"), 200, "<sip:1002@127.0.0.1:7002>;expires=3600")
		b.register("1001", "Contact: <sip:1001@127.0.0.1:7001>")
		b.sees("1001", "b sip:1001@127.0.0.1:7001", "a sip:1001@127.0.0.1:7000")
		if d := time.Since(began); d > 0 {
			t.Errorf("it took %v", d)
		}
		settle(10 * time.Second)
		b.register("1001", "Contact: *", "Expires: 0")
		if all, err := b.shared.List(t.Context()); err != nil || len(all) != 1 {
			t.Errorf("%v, %v", all, err)
		}
		settle(5 * time.Minute)
		b.sees("1001") // what was known has expired
		shelf.Away(false)
		settle(3 * time.Second)
		a.sees("1002", "b sip:1002@127.0.0.1:7002")
		a.sees("1001")
	})
}

// A phone at a node that has died is no phone.
func TestLastPhoneIsAtADeadNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shelf := siptest.NewShelf()
		a, b := newOffice(t, shelf, "a"), newOffice(t, shelf, "b")
		b.deps.Alive = func(node string) bool { return node != "a" }
		a.register("1001", "Contact: <sip:1001@127.0.0.1:7000>")
		b.register("1001", "Contact: <sip:1001@127.0.0.1:7001>")
		settle(time.Second)
		b.register("1001", "Contact: *", "Expires: 0")
		settle(time.Second)
		a.register("1001", "Contact: *", "Expires: 0")
		settle(time.Second)
		for o, want := range map[*office][]string{a: {"+1001", "-1001"}, b: {"+1001", "-1001"}} {
			if !slices.Equal(o.events, want) {
				t.Errorf("%s told %q, want %q", o.deps.Node, o.events, want)
			}
		}
	})
}

// A store that has lost everything learns it again.
func TestSharedStoreEmptied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shelf := siptest.NewShelf()
		a, b := newOffice(t, shelf, "a"), newOffice(t, shelf, "b")
		a.register("1001", "Contact: <sip:1001@127.0.0.1:7000>")
		a.register("1002", "Contact: <sip:1002@127.0.0.1:7000>")
		settle(time.Second)
		shelf.Empty()
		settle(3 * time.Second)
		b.sees("1001", "a sip:1001@127.0.0.1:7000")
		b.sees("1002", "a sip:1002@127.0.0.1:7000")
	})
}

// A store that hangs costs a caller no more than remoteRead, and the next ones nothing.
func TestSharedStoreHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newOffice(t, hanging{}, "b")
		b.register("1001", "Contact: <sip:1001@127.0.0.1:7001>")
		for _, most := range []time.Duration{remoteRead, 0} {
			began := time.Now()
			b.sees("1001", "b sip:1001@127.0.0.1:7001")
			if d := time.Since(began); d != most {
				t.Errorf("it took %v, want %v", d, most)
			}
		}
	})
}

// hanging is a store that answers nothing.
type hanging struct{}

func (hanging) wait(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }

func (h hanging) Put(ctx context.Context, _, _ string, _ []byte, _ time.Duration) error {
	return h.wait(ctx)
}
func (h hanging) Get(ctx context.Context, _ string) ([][]byte, error) { return nil, h.wait(ctx) }
func (h hanging) Remove(ctx context.Context, _, _ string) error       { return h.wait(ctx) }
func (h hanging) List(ctx context.Context) ([][]byte, error)          { return nil, h.wait(ctx) }

// What no node could have written is passed over, and said.
func TestSharedNonsense(t *testing.T) {
	shelf, said := siptest.NewShelf(), new(bytes.Buffer)
	s := NewShared(NewMemory(1), shelf, "a", slog.New(slog.NewTextHandler(said, nil)))
	mine, err := json.Marshal(Binding{Extension: "1001", Contact: "sip:x@1.2.3.4", Node: "a", Expires: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	for key, value := range map[string]string{"1": "{", "2": "", "mine": string(mine)} {
		if err := shelf.Put(t.Context(), "1001", key, []byte(value), time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	all, err := s.Get(t.Context(), "1001")
	if err != nil || len(all) != 0 || strings.Count(said.String(), "not readable") != 2 {
		t.Errorf("%v, %v; %s", all, err, said)
	}
}
