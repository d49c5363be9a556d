package staff

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// empty is a directory without people. Its clock is off by some seconds, as clocks are.
func empty(t *testing.T, off time.Duration) *bench {
	t.Helper()
	b := &bench{at: time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC).Add(off)}
	var err error
	if b.Directory, err = Open(t.Context(), Defaults(), t.TempDir(), b, b.now, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	b.hash.kib = 64
	return b
}

// everything is all changes of a directory, by pages.
func (b *bench) everything(t *testing.T) (all []Change) {
	t.Helper()
	for since := ""; ; {
		page, next, err := b.Changes(t.Context(), since)
		must(t, err)
		if next == since || len(page) == 0 {
			return all
		}
		all, since = append(all, page...), next
	}
}

// pull gives a directory what another has, as it goes over the wire.
func (b *bench) pull(t *testing.T, from *bench) int {
	t.Helper()
	wire, err := json.Marshal(from.everything(t))
	must(t, err)
	var changes []Change
	must(t, json.Unmarshal(wire, &changes))
	n, err := b.Apply(t.Context(), changes)
	must(t, err)
	return n
}

// state is what a directory says to those who ask, and what it keeps.
func (b *bench) state(t *testing.T) map[string]any {
	t.Helper()
	people, err := b.People(t.Context())
	must(t, err)
	bound, err := b.Bindings(t.Context())
	must(t, err)
	kept := make(map[string]Change)
	for _, c := range b.everything(t) {
		kept[c.Kind+" "+c.Key] = c
	}
	return map[string]any{"people": people, "bindings": bound, "kept": kept}
}

func same(t *testing.T, one, two *bench) {
	t.Helper()
	if diff := cmp.Diff(one.state(t), two.state(t)); diff != "" {
		t.Errorf("the directories differ: %s", diff)
	}
}

// act does something that people do; that it is refused is all right.
func (b *bench) act(ctx context.Context, r *rand.Rand) error {
	id, ext := fmt.Sprint("p", r.IntN(4)), fmt.Sprint(1001+r.IntN(3))
	b.turn(time.Duration(r.IntN(3)) * time.Millisecond)
	switch r.IntN(8) {
	case 0:
		return b.Add(ctx, Person{ID: id, Name: "新人", Roles: []Role{Agent, Admin}, Language: "zh", Extension: ext}, "admin")
	case 1, 2:
		p, err := b.Person(ctx, id)
		if err != nil {
			return err
		}
		p.Name, p.Disabled, p.Extension = fmt.Sprint("名", r.IntN(9), "<b>"), r.IntN(3) == 0, []string{"", ext}[r.IntN(2)]
		return b.Update(ctx, p, "admin")
	case 3:
		return b.SetPIN(ctx, id, fmt.Sprint(902817+r.IntN(9)*10), "admin")
	case 4:
		return b.SetPhoneSecret(ctx, ext, realm, "another secret", "admin")
	case 5:
		_, err := b.IssueToken(ctx, id, "script", time.Hour, "admin")
		return err
	case 6:
		return b.RevokeToken(ctx, id, "script", "admin")
	}
	if r.IntN(3) == 0 {
		return b.Unbind(ctx, id, "admin")
	}
	return b.Bind(ctx, id, ext)
}

var refusals = []error{ErrExists, ErrUnknown, ErrNoSession, ErrNoExtension, ErrNotAllowed, ErrExtensionBusy, ErrLastAdmin}

// TestDirectoriesConverge: whatever happens on three nodes, and in whatever order they hear of one another, in the
// end all say the same, one person sits at an extension, and one keeps people.
func TestDirectoriesConverge(t *testing.T) {
	for seed := range uint64(12) {
		r := rand.New(rand.NewPCG(seed, 3))
		nodes := []*bench{empty(t, 0), empty(t, 2*time.Second), empty(t, -3*time.Second)}
		for range 60 {
			n := nodes[r.IntN(3)]
			if r.IntN(4) == 0 {
				n.pull(t, nodes[r.IntN(3)])
				continue
			}
			err := n.act(t.Context(), r)
			if err != nil && !slices.ContainsFunc(refusals, func(r error) bool { return errors.Is(err, r) }) {
				t.Fatal(err)
			}
		}
		for range 2 {
			for _, to := range nodes {
				for _, i := range r.Perm(3) {
					to.pull(t, nodes[i])
				}
			}
		}
		same(t, nodes[0], nodes[1])
		same(t, nodes[0], nodes[2])

		all := nodes[0].everything(t)
		fresh := empty(t, 0)
		for range 3 { // the same changes, in any order, again and again, whatever the pages
			r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
			for page := range slices.Chunk(all, 1+r.IntN(7)) {
				_, err := fresh.Apply(t.Context(), page)
				must(t, err)
			}
		}
		if n := fresh.pull(t, nodes[1]); n != 0 {
			t.Errorf("%d changes were new after all had come", n)
		}
		same(t, nodes[0], fresh)
		lawful(t, fresh)
	}
}

// lawful checks what must hold in every directory.
func lawful(t *testing.T, b *bench) {
	t.Helper()
	bound, err := b.Bindings(t.Context())
	must(t, err)
	if seats := slices.Sorted(maps.Values(bound)); len(slices.Compact(seats)) != len(bound) {
		t.Errorf("an extension has two people: %v", bound)
	}
	people, err := b.People(t.Context())
	must(t, err)
	desks, keeps, able := map[string]string{}, false, false
	for _, p := range people {
		if other := desks[p.Extension]; other != "" && p.Extension != "" {
			t.Errorf("%s and %s have one desk", other, p.ID)
		}
		desks[p.Extension] = p.ID
		keeps, able = keeps || p.keeps(), able || p.Has(Admin)
	}
	if able && !keeps {
		t.Errorf("nobody keeps people: %+v", people)
	}
}

func TestAnExchangeIsOneEntry(t *testing.T) {
	one, two := setUp(t), empty(t, 0)
	if n := two.pull(t, one); n == 0 {
		t.Fatal("nothing came")
	}
	if !cmp.Equal(two.acts, []string{"node staff.exchange "}) {
		t.Errorf("acts %v", two.acts)
	}
	if n := two.pull(t, one); n != 0 || len(two.acts) != 1 {
		t.Errorf("again: %d new, acts %v", n, two.acts)
	}
	two.fail = errors.New("disk full")
	must(t, one.SetPIN(t.Context(), "1001", "902817", "admin"))
	_, err := two.Apply(t.Context(), one.everything(t))
	want(t, err, two.fail)
	two.fail = nil
	if n := two.pull(t, one); n != 1 {
		t.Errorf("%d new, want the PIN", n)
	}
}

// TestPeopleWorkOnEveryNode: who was added on one logs in on the other; what a page session is made of stays.
func TestPeopleWorkOnEveryNode(t *testing.T) {
	one, two := setUp(t), empty(t, -time.Hour)
	ctx := t.Context()
	token, err := one.IssueToken(ctx, "1001", "script", time.Hour, "admin")
	must(t, err)
	must(t, one.Bind(ctx, "1002", ""))
	s, err := one.Login(ctx, "1001", one.creds["1001"].Password, "127.0.0.1")
	must(t, err)
	two.pull(t, one)
	_, err = two.Session(ctx, s.Token)
	want(t, err, ErrNoSession)
	for _, c := range one.everything(t) {
		if strings.Contains(string(c.Body), tokenHash(s.Token)) {
			t.Errorf("a session is exchanged: %+v", c)
		}
	}
	s, err = two.Login(ctx, "1001", one.creds["1001"].Password, "127.0.0.1")
	must(t, err)
	if p, err := two.Token(ctx, token); err != nil || p.ID != "1001" {
		t.Errorf("Token = %v, %v", p, err)
	}
	if ha1, ok := two.HA1(ctx, "1002", realm, "SHA-256"); !ok || len(ha1) != 64 {
		t.Errorf("HA1 = %q", ha1)
	}
	want(t, two.Bind(ctx, "1001", "1002"), ErrExtensionBusy)
	must(t, two.Unbind(ctx, "1002", "1002")) // its clock is an hour behind, and the act is later all the same
	one.pull(t, two)
	if at, err := one.ExtensionOf(ctx, "1002"); err != nil || at != "" {
		t.Errorf("bound at %q, %v", at, err)
	}

	must(t, one.SetPassword(ctx, "1001", "a new one, longer", "admin"))
	must(t, one.RevokeToken(ctx, "1001", "script", "admin"))
	two.pull(t, one)
	_, err = two.Session(ctx, s.Token)
	want(t, err, ErrNoSession)
	_, err = two.Token(ctx, token)
	want(t, err, ErrNoSession)
	s, err = two.Login(ctx, "1001", "a new one, longer", "127.0.0.1")
	must(t, err)
	p, err := one.Person(ctx, "1001")
	must(t, err)
	p.Disabled = true
	must(t, one.Update(ctx, p, "admin"))
	two.pull(t, one)
	p.Disabled = false
	must(t, one.Update(ctx, p, "admin"))
	two.pull(t, one)
	_, err = two.Session(ctx, s.Token)
	want(t, err, ErrNoSession) // ended for good when the person was disabled
}

func TestTheLaterOfTwoAtOnePhoneIsBound(t *testing.T) {
	one, two := setUp(t), empty(t, 0)
	ctx := t.Context()
	two.pull(t, one)
	must(t, one.Bind(ctx, "1001", "1003"))
	two.turn(time.Second)
	must(t, two.Bind(ctx, "1002", "1003"))
	one.pull(t, two)
	two.pull(t, one)
	for _, b := range []*bench{one, two} {
		if all, err := b.Bindings(ctx); err != nil || !cmp.Equal(all, map[string]string{"1002": "1003"}) {
			t.Errorf("bindings %v, %v", all, err)
		}
	}
	must(t, one.Unbind(ctx, "1002", "1002"))
	two.pull(t, one)
	if all, err := two.Bindings(ctx); err != nil || len(all) != 0 {
		t.Errorf("the loser came back: %v, %v", all, err)
	}
}

func TestOneWhoSatDownTwiceIsBoundOnce(t *testing.T) {
	one, two := setUp(t), empty(t, time.Second)
	ctx := t.Context()
	two.pull(t, one)
	must(t, one.Bind(ctx, "1001", "1002"))
	must(t, two.Bind(ctx, "1001", "1003"))
	one.pull(t, two)
	two.pull(t, one)
	for _, b := range []*bench{one, two} {
		_, err := b.PersonAt(ctx, "1002")
		want(t, err, ErrUnknown)
		if at, err := b.ExtensionOf(ctx, "1001"); err != nil || at != "1003" {
			t.Errorf("at %q, %v", at, err)
		}
	}
}

func TestASeededDirectoryLosesAgainstRealChanges(t *testing.T) {
	one, two := setUp(t), setUpLater(t, time.Hour) // the second starts after the change on the first
	ctx := t.Context()
	must(t, one.SetPassword(ctx, "1001", "a new one, longer", "admin"))
	p, err := two.Person(ctx, "1002")
	must(t, err)
	p.Name = "李娜"
	must(t, two.Update(ctx, p, "admin"))
	one.pull(t, two)
	two.pull(t, one)
	same(t, one, two)
	for _, b := range []*bench{one, two} {
		if _, err := b.Login(ctx, "1001", "a new one, longer", "127.0.0.1"); err != nil {
			t.Error(err)
		}
		if p, err := b.Person(ctx, "1002"); err != nil || p.Name != "李娜" {
			t.Errorf("person %+v, %v", p, err)
		}
	}
	// What is a seed on both is that of the same one on both.
	_, err1 := one.Login(ctx, "1003", one.creds["1003"].Password, "127.0.0.1")
	_, err2 := two.Login(ctx, "1003", one.creds["1003"].Password, "127.0.0.1")
	if (err1 == nil) != (err2 == nil) {
		t.Errorf("%v and %v", err1, err2)
	}
}

func TestTheLastAdminStays(t *testing.T) {
	one, two := setUp(t), empty(t, time.Second)
	ctx := t.Context()
	other := Person{ID: "adm2", Name: "王芳", Roles: []Role{Admin}, Language: "zh"}
	must(t, one.Add(ctx, other, "admin"))
	two.pull(t, one)
	admin, err := one.Person(ctx, "admin")
	must(t, err)
	other.Disabled = true
	must(t, one.Update(ctx, other, "admin"))
	if p, err := one.Person(ctx, "adm2"); err != nil || !p.Disabled {
		t.Errorf("adm2 %+v, %v", p, err)
	}
	admin.Disabled = true
	want(t, one.Update(ctx, admin, "admin"), ErrLastAdmin)
	admin.Disabled, admin.Roles = false, []Role{Supervisor}
	want(t, one.Update(ctx, admin, "admin"), ErrLastAdmin)

	admin.Disabled, admin.Roles = true, []Role{Admin}
	must(t, two.Update(ctx, admin, "adm2")) // at the same time, on another node
	one.pull(t, two)
	two.pull(t, one)
	same(t, one, two)
	if p, err := one.Person(ctx, "admin"); err != nil || p.Disabled { // the later act would have been refused
		t.Errorf("admin %+v, %v", p, err)
	}
	if p, err := one.Person(ctx, "adm2"); err != nil || !p.Disabled {
		t.Errorf("adm2 %+v, %v", p, err)
	}
}

func TestApplyNamesWhatMakesNoSense(t *testing.T) {
	b := empty(t, 0)
	person := json.RawMessage(`{"id":"zhang","name":"张伟","roles":["agent"],"language":"zh"}`)
	good := Change{Kind: "person", Key: "zhang", Updated: 5, Origin: "aa", Body: person}
	newer := Change{Kind: "shift", Key: "night", Updated: 5, Origin: "aa", Body: json.RawMessage(`{}`)}
	wrong := []Change{
		{Kind: "person", Key: "li", Updated: 5, Origin: "aa", Body: person},
		{Kind: "person", Key: "zhang", Updated: 6, Origin: "aa", Body: json.RawMessage(`{"id":"zhang","roles":["king"]}`)},
		{Kind: "person", Key: "zhang", Updated: 6, Origin: "aa", Gone: true, Body: person},
		{Kind: "person", Key: "zhang", Updated: -1, Origin: "aa", Body: person},
		{Kind: "person", Key: "zhang", Updated: 6, Origin: "me", Body: person},
		{Kind: "secret", Key: "zhang/password", Updated: 5, Origin: "aa", Body: json.RawMessage(`{"hash":"plain"}`)},
		{Kind: "phone", Key: "1001", Updated: 5, Origin: "aa", Body: json.RawMessage(`{"md5":"x"}`)},
		{Kind: "token", Key: "zhang/x", Updated: 5, Origin: "aa", Body: json.RawMessage(`{"hash":"` + strings.Repeat("a", 64) + `","expires":99999999999}`)},
		{Kind: "seat", Key: "x", Updated: 5, Origin: "aa", Body: json.RawMessage(`{"person":"zhang"}`)},
		{Kind: "sitter", Key: "zhang", Updated: 5, Origin: "aa", Body: json.RawMessage(`[`)},
		{Kind: "Person", Key: "zhang", Updated: 6, Origin: "aa", Body: person},
	}
	n, err := b.Apply(t.Context(), append([]Change{good, newer}, wrong...))
	if n != 2 || err == nil || strings.Count(err.Error(), "staff: change of") != len(wrong) {
		t.Errorf("%d applied: %v", n, err)
	}
	if kept := b.everything(t); !cmp.Equal(kept, []Change{good, newer}) {
		t.Errorf("kept %+v", kept)
	}
	ancient := Change{Kind: "token", Key: "zhang/x", Updated: 5, Origin: "aa", Gone: true, Body: json.RawMessage(`{}`)}
	if n, err := b.Apply(t.Context(), []Change{ancient}); n != 0 || err != nil {
		t.Errorf("a tombstone that nobody remembers: %d, %v", n, err)
	}
	if _, err := b.Apply(t.Context(), make([]Change, changesAtOnce+1)); err == nil {
		t.Error("too many at once")
	}
}

func TestChangesGoByPages(t *testing.T) {
	b := empty(t, 0)
	ctx := t.Context()
	must(t, b.tx(ctx, func(tx *sql.Tx) error {
		for i := range changesAtOnce + 20 {
			if err := b.put(ctx, tx, kindPhone, fmt.Sprint(1000+i, "/", realm), ha1("x", realm, "y")); err != nil {
				return err
			}
		}
		return nil
	}))
	first, next, err := b.Changes(ctx, "")
	must(t, err)
	rest, last, err := b.Changes(ctx, next)
	must(t, err)
	if len(first) != changesAtOnce || len(rest) != 20 {
		t.Errorf("pages of %d and %d", len(first), len(rest))
	}
	if none, end, err := b.Changes(ctx, last); err != nil || none != nil || end != last {
		t.Errorf("after the end: %v, %q, %v", none, end, err)
	}
	must(t, b.SetPhoneSecret(ctx, "1000", realm, "another secret", "admin"))
	if one, _, err := b.Changes(ctx, last); err != nil || len(one) != 1 || one[0].Key != "1000/"+realm {
		t.Errorf("one change: %+v, %v", one, err)
	}
	if all, _, err := b.Changes(ctx, "0123456789abcdef-900"); err != nil || len(all) != changesAtOnce {
		t.Errorf("the cursor of another file: %d, %v", len(all), err)
	}
}

// firstForm is the file as it was before directories exchanged anything.
const firstForm = `
CREATE TABLE people (id TEXT PRIMARY KEY, name TEXT NOT NULL, roles TEXT NOT NULL, extension TEXT UNIQUE,
	queues TEXT NOT NULL, language TEXT NOT NULL, disabled INTEGER NOT NULL DEFAULT 0,
	password TEXT NOT NULL DEFAULT '', pin TEXT NOT NULL DEFAULT '') STRICT;
CREATE TABLE phones (extension TEXT NOT NULL, realm TEXT NOT NULL, md5 TEXT NOT NULL, sha256 TEXT NOT NULL,
	PRIMARY KEY (extension, realm)) STRICT;
CREATE TABLE bindings (extension TEXT PRIMARY KEY, person TEXT NOT NULL UNIQUE REFERENCES people(id), since INTEGER NOT NULL) STRICT;
CREATE TABLE sessions (hash TEXT PRIMARY KEY, person TEXT NOT NULL REFERENCES people(id), source TEXT NOT NULL,
	created INTEGER NOT NULL, seen INTEGER NOT NULL) STRICT;
CREATE TABLE tokens (hash TEXT PRIMARY KEY, person TEXT NOT NULL REFERENCES people(id), name TEXT NOT NULL,
	created INTEGER NOT NULL, expires INTEGER NOT NULL, UNIQUE (person, name)) STRICT;
INSERT INTO people VALUES ('zhang', '张伟', '["agent"]', '1001', '{"default":2}', 'zh', 0, 'PASSWORD', ''),
	('gone', '李<娜>', '["supervisor","admin"]', NULL, 'null', 'en', 1, '', ''),
	('off', '王五', '["agent"]', '1002', '{}', 'zh', 1, '', '');
INSERT INTO phones VALUES ('1001', 'hotline', '0123456789abcdef0123456789abcdef', 'cc');
INSERT INTO bindings VALUES ('1001', 'zhang', 1772442000);
INSERT INTO sessions VALUES ('SESSION', 'zhang', '127.0.0.1', 1772442000, 1772442000);
INSERT INTO tokens VALUES ('TOKEN', 'zhang', 'script', 1772442000, 1772445600);`

func TestAFileOfTheFirstForm(t *testing.T) {
	b := empty(t, 0)
	ctx, dir := t.Context(), t.TempDir()
	hash, err := b.hash.hash(ctx, "long enough 1")
	must(t, err)
	db, err := sql.Open("sqlite", filepath.Join(dir, "staff.db"))
	must(t, err)
	form := strings.NewReplacer("PASSWORD", hash, "'SESSION'", "'"+tokenHash("s")+"'", "'TOKEN'", "'"+tokenHash(tokenPrefix+"t")+"'").Replace(firstForm)
	_, err = db.ExecContext(ctx, form)
	must(t, errors.Join(err, db.Close()))
	for range 2 { // and it is opened again
		d, err := Open(ctx, Defaults(), dir, b, b.now, nil)
		must(t, err)
		d.hash.kib = 64
		people, err := d.People(ctx)
		must(t, err)
		if diff := cmp.Diff([]Person{
			{ID: "gone", Name: "李<娜>", Roles: []Role{Supervisor, Admin}, Language: "en"}, // the last admin may still log in
			{ID: "off", Name: "王五", Roles: []Role{Agent}, Extension: "1002", Queues: map[string]int{}, Language: "zh", Disabled: true},
			{ID: "zhang", Name: "张伟", Roles: []Role{Agent}, Extension: "1001", Queues: map[string]int{"default": 2}, Language: "zh"},
		}, people); diff != "" {
			t.Error(diff)
		}
		if p, err := d.Session(ctx, "s"); err != nil || p.ID != "zhang" {
			t.Errorf("Session = %v, %v", p, err)
		}
		if p, err := d.Token(ctx, tokenPrefix+"t"); err != nil || p.ID != "zhang" {
			t.Errorf("Token = %v, %v", p, err)
		}
		if p, err := d.PersonAt(ctx, "1001"); err != nil || p.ID != "zhang" {
			t.Errorf("PersonAt = %v, %v", p, err)
		}
		if ha1, ok := d.HA1(ctx, "1001", "hotline", "SHA-256"); !ok || ha1 != "cc" {
			t.Errorf("HA1 = %q, %v", ha1, ok)
		}
		_, err = d.Login(ctx, "zhang", "long enough 1", "127.0.0.1")
		must(t, err)
		must(t, d.Close())
	}
}
