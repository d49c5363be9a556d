package abuse

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/internal/store"
	"github.com/hotline12345/gateway/internal/store/storetest"
)

const someLists = "\ufefflist,number,note\n" +
	"protected,+8613800138000,\"a case worker, Mon\"\n" +
	"access_need,+8613900139000,\n" +
	"shared,+865718888*,city hospital\n" +
	"payphone,+8657112345678,\n"

func TestListsComeBackAsTheyWere(t *testing.T) {
	l, err := ReadLists(strings.NewReader(someLists), nil)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := l.Write(&out); err != nil {
		t.Fatal(err)
	}
	if want := strings.TrimPrefix(someLists, "\ufeff"); out.String() != want {
		t.Errorf("written:\n%s\nwant:\n%s", out.String(), want)
	}
	for number, on := range map[string]List{mobile: ListProtected, "+8613900139000": ListAccessNeed, "+86571888812": ListShared, "+8657112345678": ListPayphone} {
		for _, list := range Listings() {
			if got := l.On(list, number); got != (list == on) {
				t.Errorf("%s on %s: %v", number, list, got)
			}
		}
	}
	if l.On(ListShared, "+86571888") || l.On(ListProtected, "") || l.On(ListShared, "") {
		t.Error("a number that is shorter than the begin, or none, is on a list")
	}
}

func TestListsSayWhatIsWrong(t *testing.T) {
	for text, want := range map[string]string{
		"":                   "line 1: there is no heading; write list,number,note",
		"number,list,note\n": "line 1: there is no heading",
		"list,number,note\nvip,+8613800138000,\n":                                 "line 2: there is no list of this name; write one of [protected access_need shared payphone]",
		"list,number,note\nprotected,13800138000,\n":                              "line 2: this is no telephone number",
		"list,number,note\nprotected,+861380013*,\n":                              "line 2: a person's number is whole",
		"list,number,note\nshared,+86*,\n":                                        "line 2: the begin of a number of many is written as +86571888*",
		"list,number,note\nshared,+8613800138000,\nshared,+8613800138000\n":       "line 3",
		"list,number,note\nshared,\"+8613800138000,\n":                            "line",
		"list,number,note\n" + strings.Repeat("shared,+8613800138000,\n", 20_001): "more than 20000 lines",
	} {
		_, err := ReadLists(strings.NewReader(text), nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v, want %q", text, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "1380013") {
			t.Errorf("%.60q: the error shows the number: %v", text, err)
		}
	}
}

// listing imports lists as the system's user does.
func (n *node) listing(lines ...string) {
	n.t.Helper()
	text := "list,number,note\n" + strings.Join(lines, "\n") + "\n"
	if _, err := n.ImportLists(n.t.Context(), strings.NewReader(text), "cli.root"); err != nil {
		n.t.Fatal(err)
	}
}

// TestProtectedPeopleAreNotTouched: a measure that runs does not hold back who comes onto the list, a proposal is
// refused, and off the list both are as before.
func TestProtectedPeopleAreNotTouched(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		n := startWith(t, "n1", t.TempDir(), &clock{at: time.Now().Truncate(time.Millisecond)}, Deps{Store: s, Load: busy})
		n.sync()
		id := n.proposed()
		for _, list := range []List{ListProtected, ListAccessNeed} {
			n.listing(string(list) + "," + mobile + ",")
			if _, err := n.Approve(t.Context(), id, "sup1", Supervisor, "no request in six calls"); refusal(err) != ReasonProtected && refusal(err) != ReasonGrace {
				t.Errorf("%s: approved: %v", list, err)
			}
		}
		n.listing("protected,+8613900139000,")
		if _, err := n.Approve(t.Context(), id, "sup1", Supervisor, "no request in six calls"); err != nil {
			t.Fatal(err)
		}
		n.expect("i1", session.IVROnly)
		n.listing("protected," + mobile + ",")
		n.expect("i2", session.AdmitWatch).Lease.Release()
		n.listing()
		n.expect("i3", session.IVROnly)
	})
}

// TestManyPeoplesNumberIsNeverBarred: a hospital's number counts for nothing, holds no lease, and what was held
// against it before it was on the list is no proof.
func TestManyPeoplesNumberIsNeverBarred(t *testing.T) {
	for _, list := range []string{"shared,+86138001380*,", "payphone," + mobile + ","} {
		n := startWith(t, "n1", t.TempDir(), &clock{at: time.Now().Truncate(time.Millisecond)}, Deps{Store: storetest.Open(t, ""), Load: busy})
		n.sync()
		id := n.proposed()
		n.listing(list)
		if _, err := n.Approve(t.Context(), id, "sup1", Supervisor, "no request"); refusal(err) != ReasonIdentity {
			t.Errorf("%s: approved: %v", list, err)
		}
		for range 3 {
			if v := n.screen("same-call"); v.Decision != session.Admit {
				t.Errorf("%s: %+v", list, v)
			}
		}
		o := n.talking("c9")
		before := n.keys.counters(mobile)
		n.ends(o, session.OutcomeNoRequest)
		all, err := n.store.Client().HGetAll(t.Context(), keyCounted(before[0])).Result()
		if _, counted := all["c9"]; err != nil || counted {
			t.Errorf("%s: the call counts: %v, %v", list, all, err)
		}
		if got := n.identity(call.Verified, "+8613700000000"); got != call.Verified {
			t.Errorf("%s: a number that is on no list is %s", list, got)
		}
	}
}

// TestListsOutliveTheProcess: they are read at the start and anew when told; a wrong file leaves them as they were,
// and the import is in the audit log without a number.
func TestListsOutliveTheProcess(t *testing.T) {
	s, data := storetest.Open(t, ""), t.TempDir()
	n := start(t, s, "n1", data)
	n.listing("protected,"+mobile+",", "payphone,+8657112345678,")
	if !strings.Contains(strings.Join(n.acts(), " "), actLists) {
		t.Errorf("acts %v", n.acts())
	}
	files, err := filepath.Glob(filepath.Join(data, "audit", "*.jsonl"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	chain, err := os.ReadFile(files[0])
	if err != nil || strings.Contains(string(chain), "13800138000") || !strings.Contains(string(chain), `"protected":"1"`) {
		t.Errorf("the chain: %v\n%s", err, chain)
	}
	n.chain.Close()
	again := start(t, s, "n1", data)
	if !again.exempt(mobile) || again.identity(call.Verified, "+8657112345678") != call.Shared {
		t.Error("the lists did not outlive the process")
	}
	file := filepath.Join(data, "lists.csv")
	if err := os.WriteFile(file, []byte("list,number,note\nnobody,x,\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := again.LoadLists(); err == nil || !again.exempt(mobile) {
		t.Errorf("a wrong file: %v; protected %v", err, again.exempt(mobile))
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := again.LoadLists(); err != nil || again.exempt(mobile) {
		t.Errorf("no file: %v; protected %v", err, again.exempt(mobile))
	}
}
