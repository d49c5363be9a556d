package ivr

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hotline12345/gateway/configs"
	"github.com/hotline12345/gateway/ivr/prompt"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares with a file of testdata.
func golden(t *testing.T, file, got string) {
	t.Helper()
	file = filepath.Join("testdata", file)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

var loaded = sync.OnceValues(func() (*prompt.Catalogue, error) { return prompt.New(prompt.Defaults(), nil) })

func catalogue(t testing.TB) *prompt.Catalogue {
	t.Helper()
	c, err := loaded()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// head is a flow that is right but for what a test adds.
const head = "start: hello\nperson: desk\nnodes:\n  desk: {type: queue, queue: default}\n"

func TestCheckTellsPlaceAndMend(t *testing.T) {
	known := Known{Prompts: catalogue(t), Queues: []string{"default", "enterprise"}, Targets: []string{"centre"}}
	hello := "  hello: {type: say, say: welcome, next: desk}\n"
	tests := []struct {
		name, src    string
		line, column int
		message      string // a part of it
		mend         string // a part of it
	}{
		{"not YAML", "start: [a\n", 1, 8, "not YAML", ""},
		{"empty", "", 1, 1, "not one document", "start, person and nodes"},
		{"two documents", head + hello + "---\na: b\n", 1, 1, "not one document", "one flow a file"},
		{"no mapping", "- a\n", 1, 1, "the flow is no mapping", "key: value"},
		{"unknown key of the flow", head + hello + "strat: x\n", 6, 1, `the flow has no key "strat"`, `did you mean "start"?`},
		{"unknown key of a node", head + "  hello: {type: say, says: welcome, next: desk}\n", 5, 22, `node "hello" has no key "says"`, `did you mean "say"?`},
		{"key of another type", head + "  hello:\n    type: say\n    next: desk\n    queue: default\n", 8, 5, `no key "queue"`, "write one of: next, say, type"},
		{"key twice", head + "  hello:\n    type: say\n    next: desk\n    next: desk\n", 8, 5, `"next" of node "hello" is on line 7 already`, "keep one"},
		{"node twice", head + hello + hello, 6, 3, `the key "hello" of nodes is on line 5 already`, "keep one"},
		{"anchor", head + "  hello:\n    type: say\n    next: &a desk\n", 7, 11, "no plain value", "one word"},
		{"merge key", head + "  hello:\n    <<: {type: say}\n    type: say\n    next: desk\n", 6, 5, "another kind than a word", "anchors"},
		{"no start", "person: desk\nnodes:\n  desk: {type: queue, queue: default}\n", 1, 1, "the flow has no start", "write start:"},
		{"no person", "start: desk\nnodes:\n  desk: {type: queue, queue: default}\n", 1, 1, "the flow has no person", "write person:"},
		{"person is no queue", "start: desk\nperson: bye\nnodes:\n  desk: {type: queue, queue: default}\n  bye: {type: hangup}\n", 2, 9, `"bye" is a node of type hangup`, "type queue"},
		{"no nodes", "start: a\nperson: a\n", 1, 1, "the flow has no nodes", "write nodes:"},
		{"no type", head + "  hello:\n    next: desk\n", 5, 3, `node "hello" has no type`, "say, menu, collect"},
		{"unknown type", head + "  hello:\n    type: manu\n    next: desk\n", 6, 11, `"manu" is no type of node`, `did you mean "menu"?`},
		{"unknown target", head + "  hello:\n    type: say\n    next: dsk\n", 7, 11, `no node is named "dsk"`, `did you mean "desk"?`},
		{"unknown start", "start: helo\nperson: desk\nnodes:\n  desk: {type: queue, queue: default}\n", 1, 8, `no node is named "helo"`, "write one of: desk"},
		{"unknown prompt", head + "  hello: {type: say, say: [rec_notice, welcom], next: desk}\n", 5, 40, `no prompt is named "welcom"`, `did you mean "welcome"?`},
		{"bad spoken value", head + "  hello: {type: say, say: [\"count:x\"], next: desk}\n", 5, 28, "write a number", "prompts.tsv"},
		{"unknown queue", head + "  hello:\n    type: queue\n    queue: enterprize\n", 7, 12, `no queue is named "enterprize"`, `did you mean "enterprise"?`},
		{"unknown endpoint", head + "  hello:\n    type: transfer\n    endpoint: sip:x@y\n", 7, 15, `no endpoint is named "sip:x@y"`, "write one of: centre"},
		{"key 0", head + "  hello:\n    type: menu\n    keys:\n      0: desk\n    on_fail: desk\n", 8, 7, "key 0 is kept for emergencies", "9 is a person"},
		{"key 9", head + "  hello:\n    type: menu\n    keys:\n      9: bye\n    on_fail: desk\n  bye: {type: hangup}\n", 8, 10, `key 9 leads to "bye", which is no person`, "back"},
		{"no telephone key", head + "  hello:\n    type: menu\n    keys:\n      10: desk\n    on_fail: desk\n", 8, 7, `"10" is no key of a telephone`, "1 to 9"},
		{"key twice in a menu", head + "  hello:\n    type: menu\n    keys:\n      1: desk\n      1: hello\n    on_fail: desk\n", 9, 7, `the key "1" of keys of node "hello" is on line 8 already`, "keep one"},
		{"no keys", head + "  hello:\n    type: menu\n    on_fail: desk\n", 5, 3, `node "hello" has no keys`, "1: node"},
		{"menu without a default", head + "  hello:\n    type: menu\n    keys: {1: desk}\n", 5, 3, `node "hello" has no on_fail`, "a caller who presses nothing"},
		{"bad duration", head + "  hello:\n    type: menu\n    keys: {1: desk}\n    timeout: 5\n    on_fail: desk\n", 8, 14, `"5" is no duration from 1s to 1m0s`, "write it as 5s"},
		{"bad number", head + "  hello:\n    type: menu\n    keys: {1: desk}\n    retries: 9\n    on_fail: desk\n", 8, 14, `"9" is no number from 0 to 5`, "write it as 2"},
		{"unreachable", head + hello + "  lost: {type: hangup}\n", 6, 3, `nothing leads to node "lost"`, "lead a key"},
		{"loop", head + "  hello:\n    type: say\n    next: again\n  again:\n    type: say\n    next: hello\n", 10, 11, "flow loop: hello → again → hello", "a menu"},
		{"loop by the hours", head + "  hello:\n    type: hours\n    week: {mon: 08:00-09:00}\n    open: desk\n    closed: hello\n", 9, 13, "flow loop: hello → hello", "a menu"},
		{"no person", head + "  hello:\n    type: menu\n    keys: {1: bye}\n    on_fail: bye\n  bye: {type: hangup}\n", 5, 3, "no way leads to a person", "key 9"},
		{"reserved name", head + hello + "  back: {type: hangup}\n", 6, 3, `"back" is no name for a node`, "otherwise"},
		{"bad language", head + "  hello:\n    type: language\n    set: fr\n    next: desk\n", 7, 10, `"fr" is no language`, "zh or en"},
		{"no language", head + "  hello:\n    type: language\n    next: desk\n", 5, 3, "chooses no language", "set: en"},
		{"bad service", head + "  hello:\n    type: emergency\n    service: 911\n", 7, 14, `"911" is no emergency service`, "119"},
		{"bad terminator", head + "  hello:\n    type: collect\n    terminator: 5\n    on_fail: desk\n    next: desk\n", 7, 17, `"5" ends no digits`, "none"},
		{"min over max", head + "  hello:\n    type: collect\n    max: 3\n    min: 4\n    on_fail: desk\n    next: desk\n", 8, 10, "min 4 is more than max 3", "smaller"},
		{"bad day of the week", head + "  hello:\n    type: hours\n    week:\n      monday: 08:00-09:00\n    open: desk\n    closed: desk\n", 8, 7, `"monday" is no day of the week`, "mon-fri"},
		{"bad part of a day", head + "  hello:\n    type: hours\n    week:\n      mon: 20:00-08:00\n    open: desk\n    closed: desk\n", 8, 12, `"20:00-08:00" is no part of a day`, "24:00"},
		{"no week", head + "  hello:\n    type: hours\n    open: desk\n    closed: desk\n", 5, 3, "has no week", "mon-fri"},
		{"bad holiday", head + "  hello:\n    type: hours\n    week: {mon: 08:00-09:00}\n    holidays: [2026-10-01, 10-02]\n    open: desk\n    closed: desk\n", 8, 28, `"10-02" is no day`, "2026-10-01"},
		{"announcements elsewhere", head + "  hello:\n    type: announce\n    file: ../etc/passwd\n    next: desk\n", 7, 11, "no file of announcements", "events.yaml"},
		{"behind Chinese", head + "  hello: {type: say, say: [\"欢迎\"], next: desk}\n", 5, 28, `no prompt is named "欢迎"`, "prompts.tsv"},
		{"too large", strings.Repeat("#", maxSource+1), 1, 1, "the file has", "split it"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			flow, problems := Check("flows/x.yaml", []byte(tt.src), known)
			if flow != nil {
				t.Error("a flow in spite of the fault")
			}
			fits := func(p Problem) bool {
				return p.Line == tt.line && p.Column == tt.column && strings.Contains(p.Message, tt.message) && strings.Contains(p.Mend, tt.mend)
			}
			if !slices.ContainsFunc(problems, fits) {
				t.Errorf("want %d:%d %q, %q; got:", tt.line, tt.column, tt.message, tt.mend)
				for _, p := range problems {
					t.Log(p.Error())
				}
			}
		})
	}
}

func TestCheckShowsThePlace(t *testing.T) {
	var out strings.Builder
	for _, src := range []string{
		head + "  hello:\n    type: menu\n    say: [\"欢迎\", welcom]\n    keys:\n      0: dask\n      1: desk\n    timeuot: 5s\n",
		"start: [a\n",
	} {
		_, problems := Check("flows/x.yaml", []byte(src), Known{Prompts: catalogue(t)})
		for _, p := range problems {
			fmt.Fprintln(&out, p.Error())
		}
		fmt.Fprintln(&out)
	}
	golden(t, "problems.golden", out.String())
}

func TestCheckWarnsOfDeepMenus(t *testing.T) {
	src := head
	for i, name := range []string{"hello", "two", "three"} {
		to := append([]string{"two", "three", "desk"}[i:], "")[0]
		src += fmt.Sprintf("  %s: {type: menu, keys: {1: %s}, on_fail: desk}\n", name, to)
	}
	flow, problems := Check("x.yaml", []byte(src), Known{})
	if flow == nil || len(problems) != 1 || !problems[0].Warning || problems[0].Line != 7 {
		t.Errorf("flow %v, problems %v; want one warning on line 7", flow != nil, problems)
	}
}

func TestBuiltInFlows(t *testing.T) {
	known := Known{Prompts: catalogue(t), Queues: []string{"default"}, Targets: []string{}}
	for _, name := range []string{"default", "night"} {
		src, err := configs.Flows.ReadFile("flows/" + name + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		flow, problems := Check(name+".yaml", src, known)
		for _, p := range problems {
			t.Error(p.Error())
		}
		if flow != nil {
			golden(t, name+".render.golden", Render(flow))
		}
	}
}

func FuzzCheck(f *testing.F) {
	for _, name := range []string{"default", "night"} {
		src, err := configs.Flows.ReadFile("flows/" + name + ".yaml")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(src)
	}
	for _, src := range []string{head, "start: [a\n", "a: &a [*a]\n", "nodes:\n  ? [a]\n  : b\n", "a: |\n  b\n", "start: !!str x\n", "? a", "nodes: {a: {type: menu, keys: {1: }}}"} {
		f.Add([]byte(src))
	}
	known := Known{Prompts: catalogue(f), Queues: []string{"default"}}
	f.Fuzz(func(t *testing.T, src []byte) {
		flow, problems := Check("f.yaml", src, known)
		if (flow == nil) != (len(Faults(problems)) > 0) {
			t.Errorf("flow %v, problems %v", flow != nil, problems)
		}
		for _, p := range problems {
			if p.Line < 1 || p.Column < 1 || p.Message == "" {
				t.Errorf("a problem without a place: %+v", p)
			}
			_ = p.Error()
		}
		if flow != nil {
			_ = Render(flow)
		}
	})
}

func FuzzParseAnnouncements(f *testing.F) {
	f.Add([]byte("announcements:\n  - {topic: a, scope: [\"12345\"], expires: 2026-03-04T00:00:00+08:00, author: b, say: [goodbye]}\n"))
	f.Add([]byte("announcements: &a [*a]\n"))
	known := catalogue(f)
	f.Fuzz(func(t *testing.T, src []byte) {
		list, err := ParseAnnouncements(src, known)
		if err != nil {
			return
		}
		for _, a := range list {
			if a.Topic == "" || a.Expires.IsZero() || len(a.Say) == 0 {
				t.Errorf("taken in spite of what it lacks: %+v", a)
			}
		}
	})
}

func TestProblemIsAnError(t *testing.T) {
	_, problems := Check("x.yaml", nil, Known{})
	err := errors.Join(problems[0])
	if p, ok := errors.AsType[Problem](err); !ok || p.File != "x.yaml" {
		t.Errorf("%v is no Problem", err)
	}
}
