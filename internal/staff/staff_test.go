package staff

import (
	"context"
	"crypto/md5"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

const realm = "hotline"

// bench is a seeded directory with a clock that is turned by hand and a log that remembers.
type bench struct {
	*Directory
	creds map[string]Credential

	mu   sync.Mutex
	at   time.Time
	acts []string
	fail error
}

func (b *bench) now() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.at
}

func (b *bench) turn(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.at = b.at.Add(d)
}

func (b *bench) Record(_ context.Context, actor, act, subject string, _ map[string]string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fail != nil {
		return b.fail
	}
	b.acts = append(b.acts, actor+" "+act+" "+subject)
	return nil
}

func setUp(t *testing.T) *bench {
	t.Helper()
	return setUpLater(t, 0)
}

func setUpLater(t *testing.T, later time.Duration) *bench {
	t.Helper()
	b := &bench{at: time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC).Add(later), creds: make(map[string]Credential)}
	d, err := Open(t.Context(), Defaults(), t.TempDir(), b, b.now, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	d.hash.kib = 64 // the race detector makes 19 MiB slow
	b.Directory = d
	creds, err := d.Seed(t.Context(), realm)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range creds {
		b.creds[c.Person.ID] = c
	}
	return b
}

func want(t *testing.T, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Errorf("error %v, want %v", err, target)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestSeedOnce(t *testing.T) {
	b := setUp(t)
	people, err := b.People(t.Context())
	must(t, err)
	if len(people) != 4 || len(b.creds) != 4 {
		t.Fatalf("%d people, %d credentials", len(people), len(b.creds))
	}
	if got := people[0]; !cmp.Equal(got, b.creds["1001"].Person) || got.Extension != "1001" || got.Queues["default"] != 1 {
		t.Errorf("agent %+v", got)
	}
	if a := b.creds["admin"]; !a.Person.Has(Supervisor) || a.PIN != "" || a.Secret != "" {
		t.Errorf("admin %+v", a)
	}
	again, err := b.Seed(t.Context(), realm)
	must(t, err)
	if again != nil {
		t.Error("a second start made people again")
	}
}

func TestNothingReadableIsStored(t *testing.T) {
	b := setUp(t)
	s, err := b.Login(t.Context(), "1001", b.creds["1001"].Password, "127.0.0.1")
	must(t, err)
	token, err := b.IssueToken(t.Context(), "1001", "script", time.Hour, "admin")
	must(t, err)
	var dump strings.Builder
	for _, table := range []string{"registers", "page_sessions"} {
		rows, err := b.db.QueryContext(t.Context(), "SELECT * FROM "+table)
		must(t, err)
		columns, _ := rows.Columns()
		for rows.Next() {
			row := make([]any, len(columns))
			for i := range row {
				row[i] = new(any)
			}
			must(t, rows.Scan(row...))
			for _, v := range row {
				fmt.Fprintln(&dump, *v.(*any))
			}
		}
		rows.Close()
	}
	c := b.creds["1001"]
	for _, secret := range []string{c.Password, c.PIN, c.Secret, s.Token, token} {
		if strings.Contains(dump.String(), secret) {
			t.Errorf("a secret lies in clear in staff.db")
		}
	}
}

func TestSession(t *testing.T) {
	b := setUp(t)
	ctx := t.Context()
	s, err := b.Login(ctx, " 1001 ", b.creds["1001"].Password, "127.0.0.1")
	must(t, err)
	for range 20 { // used each 29 minutes it lives until the absolute end
		p, err := b.Session(ctx, s.Token)
		if err != nil || p.ID != "1001" {
			t.Fatalf("session = %v, %v", p, err)
		}
		b.turn(29 * time.Minute)
	}
	b.turn(s.Expires.Sub(b.now()))
	_, err = b.Session(ctx, s.Token)
	want(t, err, ErrNoSession)

	s, err = b.Login(ctx, "1001", b.creds["1001"].Password, "127.0.0.1")
	must(t, err)
	b.turn(Defaults().SessionIdle)
	_, err = b.Session(ctx, s.Token)
	want(t, err, ErrNoSession)

	s, err = b.Login(ctx, "1001", b.creds["1001"].Password, "127.0.0.1")
	must(t, err)
	must(t, b.Logout(ctx, s.Token))
	must(t, b.Logout(ctx, s.Token))
	_, err = b.Session(ctx, s.Token)
	want(t, err, ErrNoSession)

	s, err = b.Login(ctx, "1001", b.creds["1001"].Password, "127.0.0.1")
	must(t, err)
	must(t, b.SetPassword(ctx, "1001", "a new one, longer", "admin"))
	_, err = b.Session(ctx, s.Token)
	want(t, err, ErrNoSession)
	_, err = b.Login(ctx, "1001", "a new one, longer", "127.0.0.1")
	must(t, err)
}

func TestThrottle(t *testing.T) {
	b := setUp(t)
	ctx := t.Context()
	pass := b.creds["1001"].Password
	for range Defaults().AccountTries {
		_, err := b.Login(ctx, "1001", "wrong", "10.0.0.1")
		want(t, err, ErrLogin)
	}
	_, err := b.Login(ctx, "1001", pass, "10.0.0.2")
	want(t, err, ErrThrottled)
	_, err = b.Login(ctx, "1002", b.creds["1002"].Password, "10.0.0.1")
	must(t, err) // another account from there may
	b.turn(Defaults().TryEvery)
	_, err = b.Login(ctx, "1001", pass, "10.0.0.2")
	must(t, err)

	for i := range Defaults().SourceTries {
		_, err := b.Login(ctx, fmt.Sprint("nobody", i), "wrong", "10.0.0.3")
		want(t, err, ErrLogin)
	}
	_, err = b.Login(ctx, "1003", b.creds["1003"].Password, "10.0.0.3")
	want(t, err, ErrThrottled)
	for _, act := range b.acts {
		if strings.Contains(act, "nobody") {
			t.Errorf("the log holds what was typed as a name: %q", act)
		}
	}
}

func TestThrottleIsBounded(t *testing.T) {
	now := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	th := newThrottle(time.Second, 3)
	for i := range maxThrottled {
		th.take(fmt.Sprint(i), now)
	}
	if _, ok := th.take("new", now); ok {
		t.Error("an unknown key was let in while the memory is full")
	}
	if _, ok := th.take("new", now.Add(time.Second)); !ok || len(th.keys) != 1 {
		t.Errorf("%d keys kept after their failures wore off", len(th.keys))
	}
}

func TestTriesAtOnceGainNothing(t *testing.T) {
	b := setUp(t)
	var wg sync.WaitGroup
	var tried atomic.Int32
	for range 50 {
		wg.Go(func() {
			if _, err := b.Login(context.Background(), "1001", "wrong", "10.0.0.1"); errors.Is(err, ErrLogin) {
				tried.Add(1)
			}
		})
	}
	wg.Wait()
	if got := int(tried.Load()); got != Defaults().AccountTries {
		t.Errorf("%d tries were made, want %d", got, Defaults().AccountTries)
	}
	for range 50 { // who knows the password never waits
		_, err := b.Login(t.Context(), "1002", b.creds["1002"].Password, "10.0.0.2")
		must(t, err)
	}
}

func TestTokens(t *testing.T) {
	b := setUp(t)
	ctx := t.Context()
	old, err := b.IssueToken(ctx, "1001", "script", time.Hour, "admin")
	must(t, err)
	token, err := b.IssueToken(ctx, "1001", "script", 2*time.Hour, "admin")
	must(t, err)
	_, err = b.Token(ctx, old)
	want(t, err, ErrNoSession)
	p, err := b.Token(ctx, token)
	if err != nil || p.ID != "1001" {
		t.Errorf("Token = %v, %v", p, err)
	}
	b.turn(2 * time.Hour)
	_, err = b.Token(ctx, token)
	want(t, err, ErrNoSession)
	must(t, b.RevokeToken(ctx, "1001", "script", "admin"))
	want(t, b.RevokeToken(ctx, "1001", "script", "admin"), ErrNoSession)
	_, err = b.Token(ctx, "guess")
	want(t, err, ErrNoSession)
	_, err = b.IssueToken(ctx, "nobody", "x", time.Hour, "admin")
	want(t, err, ErrUnknown)
	if _, err = b.IssueToken(ctx, "1001", "x", MaxTokenLife+1, "admin"); err == nil {
		t.Error("a token for ever")
	}
}

func TestHA1(t *testing.T) {
	b := setUp(t)
	a1 := []byte("1002:" + realm + ":" + b.creds["1002"].Secret)
	for alg, sum := range map[string]string{"MD5": fmt.Sprintf("%x", md5.Sum(a1)), "SHA-256": fmt.Sprintf("%x", sha256.Sum256(a1))} {
		if got, ok := b.HA1(t.Context(), "1002", realm, alg); !ok || got != sum {
			t.Errorf("HA1 %s = %q, %v", alg, got, ok)
		}
	}
	for _, c := range [][3]string{{"1009", realm, "MD5"}, {"1002", "elsewhere", "MD5"}, {"1002", realm, "md5; DROP"}} {
		if _, ok := b.HA1(t.Context(), c[0], c[1], c[2]); ok {
			t.Errorf("HA1(%v) is known", c)
		}
	}
	must(t, b.SetPhoneSecret(t.Context(), "1010", realm, "another secret", "admin"))
	want(t, b.SetPhoneSecret(t.Context(), "12;34", realm, "another secret", "admin"), ErrNoExtension)
	want(t, b.SetPhoneSecret(t.Context(), "1010", realm, "short", "admin"), ErrWeak)
}

func TestBinding(t *testing.T) {
	b := setUp(t)
	ctx := t.Context()
	p, err := b.LoginPhone(ctx, "1002", "1001", b.creds["1001"].PIN)
	if err != nil || p.ID != "1001" {
		t.Fatalf("LoginPhone = %v, %v", p, err)
	}
	at, err := b.PersonAt(ctx, "1002")
	if err != nil || at.ID != "1001" {
		t.Errorf("PersonAt = %v, %v", at, err)
	}
	want(t, b.Bind(ctx, "1002", ""), ErrExtensionBusy)
	want(t, b.Bind(ctx, "1002", "1777"), ErrNoExtension)
	must(t, b.Bind(ctx, "1001", "")) // moves to the own desk
	must(t, b.Bind(ctx, "1002", ""))
	all, err := b.Bindings(ctx)
	must(t, err)
	if diff := cmp.Diff(map[string]string{"1001": "1001", "1002": "1002"}, all); diff != "" {
		t.Error(diff)
	}
	must(t, b.Unbind(ctx, "1001", "admin"))
	must(t, b.Unbind(ctx, "1001", "admin"))
	if ext, err := b.ExtensionOf(ctx, "1001"); err != nil || ext != "" {
		t.Errorf("ExtensionOf = %q, %v", ext, err)
	}
	_, err = b.PersonAt(ctx, "1001")
	want(t, err, ErrUnknown)
	_, err = b.LoginPhone(ctx, "1003", "1003", "000000")
	want(t, err, ErrLogin)
	_, err = b.LoginPhone(ctx, "1003", "admin", "000000")
	want(t, err, ErrLogin)

	must(t, b.Add(ctx, Person{ID: "audit1", Name: "审计", Roles: []Role{Auditor}, Language: "zh"}, "admin"))
	want(t, b.Bind(ctx, "audit1", "1003"), ErrNotAllowed)
}

func TestPeopleChange(t *testing.T) {
	b := setUp(t)
	ctx := t.Context()
	sup := Person{ID: "Sup1", Name: "李娜", Roles: []Role{Supervisor}, Language: "zh", Queues: map[string]int{"default": 2}}
	must(t, b.Add(ctx, sup, "admin"))
	want(t, b.Add(ctx, sup, "admin"), ErrExists)
	got, err := b.Person(ctx, "SUP1")
	must(t, err)
	must(t, b.SetPassword(ctx, "sup1", "long enough 1", "admin"))
	s, err := b.Login(ctx, "sup1", "long enough 1", "127.0.0.1")
	must(t, err)
	got.Extension = "1001" // another's desk
	want(t, b.Update(ctx, got, "admin"), ErrExists)
	got.Extension, got.Disabled = "", true
	must(t, b.Update(ctx, got, "admin"))
	_, err = b.Session(ctx, s.Token)
	want(t, err, ErrNoSession)
	_, err = b.Login(ctx, "sup1", "long enough 1", "127.0.0.1")
	want(t, err, ErrLogin)
	want(t, b.Bind(ctx, "sup1", "1003"), ErrNotAllowed)
	got.ID = "ghost"
	want(t, b.Update(ctx, got, "admin"), ErrUnknown)
	want(t, b.SetPIN(ctx, "ghost", "902817", "admin"), ErrUnknown)

	err = b.Add(ctx, Person{ID: "a b", Roles: []Role{"king"}, Extension: "x", Queues: map[string]int{"q": 0}}, "admin")
	for _, part := range []string{"id", "name", "role", "extension", "language", "queue"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%v does not name %s", err, part)
		}
	}
}

func TestAnActThatTheLogRefusesDoesNotHappen(t *testing.T) {
	b := setUp(t)
	ctx := t.Context()
	b.fail = errors.New("disk full")
	p := Person{ID: "new1", Name: "新人", Roles: []Role{Agent}, Language: "zh"}
	want(t, b.Add(ctx, p, "admin"), b.fail)
	want(t, b.Bind(ctx, "1001", ""), b.fail)
	want(t, b.SetPassword(ctx, "1001", "a new one, longer", "admin"), b.fail)
	_, err := b.Login(ctx, "1001", b.creds["1001"].Password, "127.0.0.1")
	want(t, err, b.fail)
	b.fail = nil
	_, err = b.Person(ctx, "new1")
	want(t, err, ErrUnknown)
	_, err = b.PersonAt(ctx, "1001")
	want(t, err, ErrUnknown)
	_, err = b.Login(ctx, "1001", b.creds["1001"].Password, "127.0.0.1")
	must(t, err)
}

func TestDistinct(t *testing.T) {
	for _, c := range []struct {
		ids  []string
		want bool
	}{
		{[]string{"sup1", "ag7"}, true},
		{[]string{"sup1", "SUP1 "}, false},
		{[]string{"sup1", ""}, false},
		{[]string{"a", "b", "a"}, false},
	} {
		if got := Distinct(c.ids...); got != c.want {
			t.Errorf("Distinct(%q) = %v", c.ids, got)
		}
	}
}

func TestSecretsThatAreTooEasy(t *testing.T) {
	for pin, ok := range map[string]bool{"902817": true, "111111": false, "123456": false, "987654": false, "12345": false, "12a456": false} {
		if err := checkPIN(pin); (err == nil) != ok {
			t.Errorf("PIN %s: %v", pin, err)
		}
	}
	want(t, checkPassword("short"), ErrWeak)
	if p := newPassword(); checkPassword(p) != nil || p == newPassword() || len(readable) != 32 {
		t.Errorf("password %q", p)
	}
}

func TestHashing(t *testing.T) {
	h := newHasher(1)
	stored, err := h.hash(t.Context(), "secret")
	must(t, err)
	for given, wantOK := range map[string]bool{"secret": true, "Secret": false} {
		if ok, err := h.matches(t.Context(), given, stored); err != nil || ok != wantOK {
			t.Errorf("matches(%q) = %v, %v", given, ok, err)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	h.slots <- struct{}{} // all slots are taken
	if _, err := h.hash(ended, "x"); !errors.Is(err, context.Canceled) {
		t.Errorf("hash = %v", err)
	}
	if _, err := h.matches(ended, "x", stored); !errors.Is(err, context.Canceled) {
		t.Errorf("matches = %v", err)
	}
}

func FuzzPHC(f *testing.F) {
	f.Add("$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
	f.Add("$argon2id$v=19$m=4294967295,t=0,p=0$$")
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		p, _ := newHasher(1).parse(s)
		if len(p.key) != argonLength || p.time == 0 || p.lanes == 0 || p.memory > 1<<20 {
			t.Fatalf("parameters that argon2 cannot take: %+v", p)
		}
	})
}

func TestConfigAndMetrics(t *testing.T) {
	must(t, Defaults().Validate())
	err := Config{}.Validate()
	for _, path := range []string{"session_idle: ", "session_max: ", "account_tries: ", "source_tries: ", "try_every: ", "hashing: "} {
		if err == nil || !strings.Contains("\n"+err.Error(), "\n"+path) {
			t.Errorf("%v does not name %s", err, path)
		}
	}
	reg := prometheus.NewPedanticRegistry()
	newMetrics(reg)
	families, err := reg.Gather()
	must(t, err)
	if problems, err := promlint.NewWithMetricFamilies(families).Lint(); err != nil || len(problems) > 0 {
		t.Errorf("promlint: %v %v", problems, err)
	}
}

func TestOpenFails(t *testing.T) {
	if _, err := Open(t.Context(), Defaults(), t.TempDir()+"/none", nil, time.Now, nil); err == nil {
		t.Error("opened a file in a directory that is not there")
	}
}
