package store_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/hotline12345/gateway/internal/store"
	"github.com/hotline12345/gateway/internal/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestClockScriptsAndStreams(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		ctx := t.Context()
		script := s.Script("touch", `local t = redis.call('TIME'); redis.call('XADD', KEYS[1], '*', 's', t[1]); return t[1]`)
		for range 2 { // the second is after a flush: NOSCRIPT sends the text
			if err := script.Run(ctx, s.Client(), []string{"{h}:s"}).Err(); err != nil {
				t.Fatal(err)
			}
			if err := s.Client().ScriptFlush(ctx).Err(); err != nil {
				t.Fatal(err)
			}
		}
		read, err := s.Blocking().XRead(ctx, &redis.XReadArgs{Streams: []string{"{h}:s", "0"}, Block: time.Second}).Result()
		if err != nil || len(read[0].Messages) != 2 {
			t.Fatalf("XREAD: %v, %v", read, err)
		}
		now, err := s.Now(ctx)
		if err != nil || time.Since(now).Abs() > time.Minute {
			t.Fatalf("Now: %v, %v", now, err)
		}
	})
}

func TestKeysExpireByTheClock(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		ctx := t.Context()
		if err := s.Client().Set(ctx, "k", "v", 30*time.Millisecond).Err(); err != nil {
			t.Fatal(err)
		}
		await(t, func() bool { return errors.Is(s.Client().Get(ctx, "k").Err(), redis.Nil) })
	})
}

func TestStalledRedisCostsNothingOnceTheBreakerIsOpen(t *testing.T) {
	server := storetest.Start(t)
	cfg := store.Defaults()
	cfg.Addrs = []string{server.Addr}
	s := storetest.Run(t, cfg)
	server.Pause(t)
	for range 20 { // the monitor's probe may hold the breaker half open meanwhile
		start := time.Now()
		err := s.Client().Get(t.Context(), "k").Err()
		if !store.Away(err) {
			t.Fatalf("a paused server answered: %v", err)
		}
		if took := time.Since(start); took > time.Second {
			t.Fatalf("an operation on a stalled server took %v", took)
		}
	}
	best := time.Hour
	for range 1000 {
		start := time.Now()
		_ = s.Client().Get(t.Context(), "k").Err()
		best = min(best, time.Since(start))
	}
	if best > 50*time.Microsecond {
		t.Errorf("a refusal took %v at best", best)
	}
	storetest.Await(t, s, false)
	server.Resume(t)
	storetest.Await(t, s, true)
	await(t, func() bool { return errors.Is(s.Client().Get(t.Context(), "k").Err(), redis.Nil) })
}

func TestScriptsAreLoadedAgainAfterARestart(t *testing.T) {
	server := storetest.Start(t)
	s := storetest.Open(t, server.Addr)
	script := s.Script("one", "return 1")
	server.Kill(t)
	storetest.Await(t, s, false)
	if err := s.Client().Ping(t.Context()).Err(); !store.Away(err) {
		t.Fatalf("a killed server answered: %v", err)
	}
	server.Restart(t)
	storetest.Await(t, s, true)
	await(t, func() bool { // not Run: only a script that was loaded can be called by its hash
		n, err := script.EvalSha(t.Context(), s.Client(), nil).Int()
		return err == nil && n == 1
	})
}

func TestFaultOnDemand(t *testing.T) {
	s := storetest.Open(t, "")
	var fault storetest.Fault
	s.Client().AddHook(&fault)
	fault.Fail(errors.New("broken"))
	if err := s.Client().Ping(t.Context()).Err(); err == nil || !store.Away(err) {
		t.Fatalf("want the fault, got %v", err)
	}
	if _, err := s.Client().Pipelined(t.Context(), func(p redis.Pipeliner) error { return p.Ping(t.Context()).Err() }); err == nil {
		t.Fatal("the pipeline passed the fault")
	}
	fault.Fail(nil)
	await(t, func() bool { return s.Client().Ping(t.Context()).Err() == nil })
}

func TestAway(t *testing.T) {
	for _, c := range []struct {
		err  error
		want bool
	}{
		{nil, false}, {redis.Nil, false}, {context.Canceled, false},
		{answer("ERR wrong"), false}, {answer("NOSCRIPT No matching script"), false},
		{answer("READONLY You can't write"), true}, {answer("LOADING dataset"), true},
		{context.DeadlineExceeded, true}, {store.ErrAway, true}, {errors.New("connection refused"), true},
	} {
		if got := store.Away(c.err); got != c.want {
			t.Errorf("Away(%v) = %v", c.err, got)
		}
	}
}

type answer string

func (a answer) Error() string { return string(a) }
func (answer) RedisError()     {}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	s, err := store.New(store.Defaults(), testLog(t), reg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	script := s.Script("fail", "return redis.error_reply('ERR no')")
	go func() { done <- s.Run(ctx) }()
	storetest.Await(t, s, true)
	if err := script.Run(ctx, s.Client(), nil).Err(); err == nil {
		t.Fatal("the script did not fail")
	}
	const want = "# HELP hotline_store_up 1 while Redis answers.\n# TYPE hotline_store_up gauge\nhotline_store_up 1\n"
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "hotline_store_up"); err != nil {
		t.Error(err)
	}
	got, err := testutil.GatherAndCount(reg, "hotline_state_errors_total")
	if err != nil || got != 14 { // 12 plain commands, other, fail: all from the start
		t.Errorf("hotline_state_errors_total has %d series: %v", got, err)
	}
	problems, err := testutil.GatherAndLint(reg)
	if err != nil || len(problems) > 0 {
		t.Errorf("promlint: %v %v", []promlint.Problem(problems), err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestValidate(t *testing.T) {
	ok := store.Defaults()
	if err := ok.Validate(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		want string
		mend func(*store.Config)
	}{
		{"addrs[0]: ", func(c *store.Config) { c.Addrs = []string{"nowhere"} }},
		{"addrs: single", func(c *store.Config) { c.Addrs = []string{"a:1", "b:1"} }},
		{"master_name: ", func(c *store.Config) { c.Mode, c.Addrs = store.Sentinel, []string{"a:1"} }},
		{"addrs: cluster", func(c *store.Config) { c.Mode = store.Cluster }},
		{"mode: ", func(c *store.Config) { c.Mode = "many" }},
		{"db: ", func(c *store.Config) { c.DB = 16 }},
		{"db: a cluster", func(c *store.Config) { c.Mode, c.Addrs, c.DB = store.Cluster, []string{"a:1"}, 1 }},
		{"timeout: ", func(c *store.Config) { c.Timeout = 0 }},
		{"slow_timeout: ", func(c *store.Config) { c.SlowTimeout = time.Millisecond }},
		{"pool_size: ", func(c *store.Config) { c.PoolSize = 0 }},
		{"tls: ", func(c *store.Config) { c.TLS.CertFile = "x" }},
	} {
		cfg := store.Defaults()
		c.mend(&cfg)
		if err := cfg.Validate(); err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("want %q, got %v", c.want, err)
		}
		if _, err := store.New(cfg, testLog(t), nil); err == nil {
			t.Errorf("%q: New took it", c.want)
		}
	}
}

func TestSecretFiles(t *testing.T) {
	server := storetest.Start(t)
	s := storetest.Open(t, server.Addr)
	if err := s.Client().ConfigSet(t.Context(), "requirepass", "geheim").Err(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("geheim\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := store.Defaults()
	cfg.Addrs, cfg.PasswordFile, cfg.Timeout = []string{server.Addr}, file, time.Second
	if err := storetest.Run(t, cfg).Client().Set(t.Context(), "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	cfg.PasswordFile = file + ".missing"
	if _, err := store.New(cfg, testLog(t), nil); err == nil || !strings.HasPrefix(err.Error(), "password_file: ") {
		t.Errorf("a missing password file: %v", err)
	}
	cfg.PasswordFile, cfg.TLS = "", store.TLS{Enabled: true, CAFile: file}
	if _, err := store.New(cfg, testLog(t), nil); err == nil || !strings.HasPrefix(err.Error(), "tls.ca_file: ") {
		t.Errorf("a CA file without a certificate: %v", err)
	}
}

// await polls a condition on what the server says.
func await(t *testing.T, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for ; !holds(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("the condition never held")
		}
	}
}

// A pipeline longer than what both sides' buffers hold together.
func TestALongPipeline(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		if err := s.Client().Set(t.Context(), "k", strings.Repeat("v", 1000), 0).Err(); err != nil {
			t.Fatal(err)
		}
		replies, err := s.Blocking().Pipelined(t.Context(), func(p redis.Pipeliner) error {
			for range 200 {
				p.Get(t.Context(), "k")
			}
			return nil
		})
		if err != nil || len(replies) != 200 {
			t.Fatalf("%d replies: %v", len(replies), err)
		}
	})
}
