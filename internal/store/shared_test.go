package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/hotline12345/gateway/internal/store"
	"github.com/hotline12345/gateway/internal/store/storetest"
)

func TestNodesBeatAndAreListed(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		nodes, ctx := store.NewNodes(s), t.Context()
		b := store.Node{Name: "b", Version: "1.1", API: "https://10.0.0.2:8443", SIP: "10.0.0.2:5070", Started: time.Unix(1, 0).UTC(),
			ConfigHash: "c", PolicyHash: "p", Draining: true, Calls: 7}
		if _, err := nodes.Beat(ctx, b); err != nil {
			t.Fatal(err)
		}
		got, err := nodes.Beat(ctx, store.Node{Name: "a", Alive: false, Seen: time.Unix(9, 0)})
		if err != nil {
			t.Fatal(err)
		}
		b.Alive = true
		want := []store.Node{{Name: "a", Alive: true}, b}
		if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(store.Node{}, "Seen")); diff != "" {
			t.Error(diff)
		}
		if age := time.Since(got[0].Seen).Abs(); age > time.Minute {
			t.Errorf("a was seen %v ago", age)
		}
		again, err := nodes.List(ctx)
		if diff := cmp.Diff(got, again); diff != "" || err != nil {
			t.Error(err, diff)
		}
	})
}

// age makes Redis believe that a node was seen some time ago.
func age(t *testing.T, s *store.Store, name string, by time.Duration) {
	t.Helper()
	if err := s.Client().ZIncrBy(t.Context(), "hotline:{nodes}:seen", -float64(by.Milliseconds()), name).Err(); err != nil {
		t.Fatal(err)
	}
}

func TestSilentNodesDieDropOutAndAreForgotten(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		nodes, ctx := store.NewNodes(s), t.Context()
		for _, name := range []string{"living", "silent", "old"} {
			if _, err := nodes.Beat(ctx, store.Node{Name: name}); err != nil {
				t.Fatal(err)
			}
		}
		age(t, s, "silent", 10*time.Second)
		age(t, s, "old", 8*24*time.Hour)
		got, err := nodes.Beat(ctx, store.Node{Name: "living"})
		if err != nil || len(got) != 2 || !got[0].Alive || got[1].Name != "silent" || got[1].Alive {
			t.Fatalf("%+v %v", got, err)
		}
		for _, c := range []struct {
			name string
			want error
		}{{"living", store.ErrNodeAlive}, {"silent", nil}, {"silent", store.ErrNodeUnknown}, {"old", store.ErrNodeUnknown}} {
			if err := nodes.Forget(ctx, c.name); !errors.Is(err, c.want) {
				t.Errorf("Forget(%s): %v, want %v", c.name, err, c.want)
			}
		}
		if n := s.Client().HLen(ctx, "hotline:{nodes}:said").Val(); n != 1 {
			t.Errorf("%d nodes left their words behind", n-1)
		}
	})
}

func TestTheListOfNodesIsBounded(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		nodes, ctx := store.NewNodes(s), t.Context()
		for n := range 64 {
			if _, err := nodes.Beat(ctx, store.Node{Name: fmt.Sprintf("n%d", n)}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := nodes.Beat(ctx, store.Node{Name: "another"}); !errors.Is(err, store.ErrNodesFull) {
			t.Errorf("the 65th node: %v", err)
		}
		if all, err := nodes.Beat(ctx, store.Node{Name: "n7"}); err != nil || len(all) != 64 {
			t.Errorf("a node that is on the list: %d, %v", len(all), err)
		}
		for _, bad := range []store.Node{{}, {Name: "a b"}, {Name: "n7", API: strings.Repeat("x", 5000)}} {
			if _, err := nodes.Beat(ctx, bad); err == nil {
				t.Errorf("%.40v was taken", bad)
			}
		}
	})
}

func texts(values [][]byte, err error) string {
	if err != nil {
		return err.Error()
	}
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = string(v)
	}
	slices.Sort(out)
	return strings.Join(out, ",")
}

func TestPhonesAreSharedUntilTheirTimeIsOver(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		phones, ctx := store.NewPhones(s), t.Context()
		put := func(extension, key, value string, ttl time.Duration) {
			t.Helper()
			if err := phones.Put(ctx, extension, key, []byte(value), ttl); err != nil {
				t.Fatal(err)
			}
		}
		binary := "\x00\xff a\r\nb"
		put("1001", "<urn:1> at home", "desk", time.Hour)
		put("1001", "2", binary, time.Hour)
		put("1001", "2", binary+"!", time.Hour) // in its place
		put("1002", "1", "other", time.Hour)
		put("1003", "1", "short", time.Millisecond)
		if got, want := texts(phones.Get(ctx, "1001")), binary+"!,desk"; got != want {
			t.Errorf("1001: %q, want %q", got, want)
		}
		await(t, func() bool { return texts(phones.Get(ctx, "1003")) == "" })
		if got, want := texts(phones.List(ctx)), binary+"!,desk,other"; got != want {
			t.Errorf("all: %q, want %q", got, want)
		}
		for range 2 {
			if err := phones.Remove(ctx, "1001", "2"); err != nil {
				t.Fatal(err)
			}
		}
		if got := texts(phones.Get(ctx, "1001")); got != "desk" {
			t.Errorf("1001: %q", got)
		}
		put("1002", "1", "other", time.Hour) // sweeps
		if keys := s.Client().Keys(ctx, "hotline:{phones}:x:1003").Val(); len(keys) != 0 {
			t.Errorf("what is over was left behind: %v", keys)
		}
	})
}

func TestPhonesAreBounded(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		phones, ctx := store.NewPhones(s), t.Context()
		put := func(extension, key string) error { return phones.Put(ctx, extension, key, []byte("v"), time.Hour) }
		for n := range 32 {
			if err := put("1001", fmt.Sprint(n)); err != nil {
				t.Fatal(err)
			}
		}
		if err := put("1001", "another"); !errors.Is(err, store.ErrPhonesFull) {
			t.Errorf("the 33rd phone of an extension: %v", err)
		}
		if err := put("1001", "7"); err != nil {
			t.Errorf("a phone that is there: %v", err)
		}
		for _, err := range []error{put("", "k"), put("1 2", "k"), put("1", ""), put("1", strings.Repeat("k", 300)),
			phones.Put(ctx, "1", "k", bytes.Repeat([]byte("v"), 5000), time.Hour), phones.Put(ctx, "1", "k", nil, 0)} {
			if err == nil {
				t.Error("a phone that cannot be was taken")
			}
		}
	})
}

// All that may be, on a real server: the last is refused, and the list comes in pages.
func TestTwentyThousandPhones(t *testing.T) {
	s := storetest.Open(t, storetest.Start(t).Addr)
	phones, ctx := store.NewPhones(s), t.Context()
	fill := s.Script("fill", `local t = redis.call('TIME'); local ends = string.format('%.0f', t[1] * 1000 + 3600000)
for n = 1, 20000 do
	redis.call('ZADD', KEYS[1] .. 'due', ends, n .. ' k'); redis.call('HSET', KEYS[1] .. 'x:' .. n, 'k', ends .. ' v' .. n)
end`)
	fill.Run(ctx, s.Blocking(), []string{"hotline:{phones}:"})
	if err := phones.Put(ctx, "20001", "k", []byte("v"), time.Hour); !errors.Is(err, store.ErrPhonesFull) {
		t.Errorf("one more: %v", err)
	}
	all, err := phones.List(ctx)
	if err != nil || len(all) != 20_000 {
		t.Errorf("%d phones, %v", len(all), err)
	}
	if got := texts(phones.Get(ctx, "19999")); got != "v19999" {
		t.Errorf("the last but one is %q", got)
	}
}

func TestTheVaultAgreesOnTheFirst(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		ctx, key := t.Context(), bytes.Repeat([]byte{1}, 32)
		vault := func(key []byte) *store.Vault {
			v, err := store.NewVault(s, key)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
		agree := func(v *store.Vault, name, fresh string) string {
			t.Helper()
			got, err := v.Agree(ctx, name, []byte(fresh))
			if err != nil {
				t.Fatal(err)
			}
			return string(got)
		}
		one, two := vault(key), vault(key)
		if a, b := agree(one, "epoch", "first"), agree(two, "epoch", "second"); a != "first" || b != "first" {
			t.Errorf("they agreed on %q and %q", a, b)
		}
		if stored := s.Client().HGet(ctx, "hotline:{vault}:secrets", "epoch").Val(); strings.Contains(stored, "first") {
			t.Error("the secret lies in clear")
		}
		if _, err := vault(bytes.Repeat([]byte{2}, 32)).Agree(ctx, "epoch", []byte("x")); !errors.Is(err, store.ErrVaultKey) {
			t.Errorf("another key: %v", err)
		}
		// A secret under another's name is not taken for it.
		s.Client().HSet(ctx, "hotline:{vault}:secrets", "other", s.Client().HGet(ctx, "hotline:{vault}:secrets", "epoch").Val())
		if _, err := one.Agree(ctx, "other", []byte("x")); !errors.Is(err, store.ErrVaultKey) {
			t.Errorf("a secret that was moved: %v", err)
		}
		if err := errors.Join(one.Forget(ctx, "epoch"), one.Forget(ctx, "never")); err != nil {
			t.Fatal(err)
		}
		if got := agree(two, "epoch", "second"); got != "second" {
			t.Errorf("after it was forgotten: %q", got)
		}
	})
}

func TestTheVaultIsBounded(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		if _, err := store.NewVault(s, []byte("short")); err == nil {
			t.Error("a short key was taken")
		}
		v, err := store.NewVault(s, make([]byte, 32))
		if err != nil {
			t.Fatal(err)
		}
		offer := func(name string, size int) error {
			_, err := v.Agree(context.Background(), name, make([]byte, size))
			return err
		}
		for n := range 1024 {
			if err := offer(fmt.Sprint(n), 1); err != nil {
				t.Fatal(err)
			}
		}
		if err := offer("another", 1); !errors.Is(err, store.ErrVaultFull) {
			t.Errorf("one more: %v", err)
		}
		if offer("", 1) == nil || offer("7", 5000) == nil {
			t.Error("a secret that cannot be was taken")
		}
	})
}
