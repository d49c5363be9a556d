package ivr

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/hotline12345/gateway/configs"
	"github.com/hotline12345/gateway/ivr/prompt"
)

func builtIn(t *testing.T, name string) *Flow {
	t.Helper()
	src, err := configs.Flows.ReadFile("flows/" + name + ".yaml")
	if err != nil {
		t.Fatal(err)
	}
	f, problems := Check(name+".yaml", src, Known{})
	if f == nil {
		t.Fatal(problems)
	}
	return f
}

func TestSimulateBuiltInFlows(t *testing.T) {
	for _, name := range []string{"default", "night"} {
		script, err := os.ReadFile("testdata/" + name + ".txtar")
		if err != nil {
			t.Fatal(err)
		}
		results, err := Simulate(builtIn(t, name), Defaults(), catalogue(t), nil, script)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range results {
			if r.Err != nil {
				t.Errorf("%s: %s: %v\n%s", name, r.Name, r.Err, r.Trace)
			}
		}
	}
}

func TestSimulateEveryStep(t *testing.T) {
	f, problems := Check("walks.yaml", []byte(walks), Known{})
	if f == nil {
		t.Fatal(problems)
	}
	cfg := Defaults()
	cfg.Targets = map[string]Target{"centre": {Extension: "1001"}}
	script := `
-- digits --
press 2
expect say ask_case
press 12
wait 1s
press 34
wait 3s
expect queue default
expect data case_no=1234
-- *0 inside digits --
press 2 1*0
expect emergency
-- 0 inside digits --
press 2 1000#
expect data case_no=1000
-- a service --
press 6
expect emergency 119
-- elsewhere --
press 5
expect transfer centre
-- no message --
press 4
expect say leave_msg beep
expect say msg_none
expect hangup
-- round and round, by the script's own clock --
press 1 1 1 1
wait 4s
press *
wait 59m
expect queue default
-- stuck --
` + strings.Repeat("press *\nwait 4s\n", 39) + `wait 10m
expect say ivr_stuck
expect queue default
`
	results, err := Simulate(f, cfg, catalogue(t), fstest.MapFS{}, []byte(script))
	if err != nil {
		t.Fatal(err)
	}
	if len(results) != 8 {
		t.Errorf("%d results; want 8", len(results))
	}
	for _, r := range results {
		if r.Err != nil {
			t.Errorf("%s: %v\n%s", r.Name, r.Err, r.Trace)
		}
	}
}

func TestSimulateTellsWhatWasNotMet(t *testing.T) {
	f := builtIn(t, "default")
	for _, tt := range []struct{ script, want string }{
		{"-- a --\nexpect say goodbye\n", "line 2: expect say goodbye; heard: welcome rec_notice"},
		{"a comment\n-- a --\nexpect queue vip\n", "line 3: expect queue vip; the end: queue default"},
		{"-- a --\n-- b --\n\nexpect node progress\n", "line 4: expect node progress; came to: welcome"},
		{"-- a --\nexpect language en\n", "line 2: expect language en"},
		{"-- a --\nexpect data x=1\n", "line 2: expect data x=1"},
		{"-- a --\npress 2\nexpect queue default\npress 3\n", "line 4: press comes too late: the flow has ended: the end: queue default"},
		{"-- a --\nhangup\nexpect queue default\n", "line 3: expect queue default; the end: ended"},
	} {
		results, err := Simulate(f, Defaults(), catalogue(t), nil, []byte(tt.script))
		if err != nil {
			t.Fatal(err)
		}
		if last := results[len(results)-1]; last.Err == nil || !strings.Contains(last.Err.Error(), tt.want) {
			t.Errorf("%q: %v; want %s\n%s", tt.script, last.Err, tt.want, last.Trace)
		}
	}
	for _, tt := range []struct{ script, want string }{
		{"press 1\n", "the script has no calls"},
		{"-- a --\nshout\n", `a: line 2: "shout" is no step`},
		{"-- a --\npress 1\ncall 12345 2026-03-03T09:00:00+08:00\n", "line 3: call comes first"},
		{"-- a --\ncall 12345 soon\n", "line 2: parsing time"},
		{"-- a --\npress x\n", "line 2: 'x' is no key"},
		{"-- a --\npress\n", "line 2: press what?"},
		{"-- a --\nwait\n", "line 2: wait how long?"},
		{"-- a --\nwait 2h\n", "line 2: wait how long?"},
		{"-- a --\nexpect nothing\n", "line 2: expect what?"},
	} {
		if _, err := Simulate(f, Defaults(), catalogue(t), nil, []byte(tt.script)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v; want %s", tt.script, err, tt.want)
		}
	}
}

func Example() {
	const source = `start: welcome
person: desk
nodes:
  welcome:
    type: menu
    say: [welcome, emerg_hint]
    keys:
      2: english
      9: desk
    timeout: 1s
    retries: 0
    on_fail: desk
  english:
    type: language
    set: en
    next: desk
  desk:
    type: queue
    queue: default
`
	prompts, err := prompt.New(prompt.Defaults(), nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	flow, problems := Check("hotline.yaml", []byte(source), Known{Prompts: prompts, Queues: []string{"default"}})
	for _, p := range problems {
		fmt.Println(p.Error())
	}
	script := `
-- English --
press 2
expect node english
expect queue default
expect language en
`
	results, err := Simulate(flow, Defaults(), prompts, nil, []byte(script))
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, r := range results {
		fmt.Printf("%s: %v\n%s", r.Name, r.Err, r.Trace)
	}
	// Output:
	// English: <nil>
	//     0.0s  node welcome (zh)
	//     0.0s  say welcome emerg_hint
	//     0.0s  press 2
	//     0.0s  node english (zh)
	//     0.0s  node desk (en)
	//     0.0s  the end: queue default
}
