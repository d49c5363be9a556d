package measure

import (
	"strings"
	"testing"

	"github.com/hotline12345/gateway/ivr/emergency"
)

func TestRead(t *testing.T) {
	cases, err := Read(strings.NewReader("119\tkeyword\t着火了\nnone\thard\t消防通道\n"), "dir/a.tsv")
	if err != nil || len(cases) != 2 || cases[0] != (Case{"119", "keyword", "着火了", "a", 1}) || cases[1].Danger() {
		t.Errorf("%v, %v", cases, err)
	}
	cases, err = Read(strings.NewReader("id\tsplit(dev)\texpect_service(119)\ttext\tnote\np1\tdev\tany\t救命\tcry\n"), "b.tsv")
	if err != nil || len(cases) != 1 || cases[0] != (Case{"any", "cry", "救命", "b", 2}) {
		t.Errorf("%v, %v", cases, err)
	}
	for said, want := range map[string]string{"119\tkeyword\n": "a.tsv:1: no text", "119\tk\tx\n118\tk\ty\n": `a.tsv:2: service "118"`} {
		if _, err := Read(strings.NewReader(said), "a.tsv"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want %s", said, err, want)
		}
	}
	if _, _, err := Authors(t.TempDir()); err == nil {
		t.Error("no authors are authors")
	}
}

func TestCount(t *testing.T) {
	var n Count
	fire, none, cry := Case{Service: "119"}, Case{Service: "none"}, Case{Service: "any"}
	n.add(fire, emergency.Verdict{Action: emergency.Transfer, Service: "119"})
	n.add(fire, emergency.Verdict{Action: emergency.Confirm, Service: "120"})
	n.add(fire, emergency.Verdict{})
	n.add(cry, emergency.Verdict{Action: emergency.Confirm, Service: "110"})
	n.add(none, emergency.Verdict{Action: emergency.Transfer, Service: "110"})
	n.add(none, emergency.Verdict{Action: emergency.Confirm, Service: "110"})
	n.add(none, emergency.Verdict{})
	if want := (Count{4, 1, 2, 1, 3, 1, 1}); n != want || n.Recall() != 0.75 {
		t.Errorf("%+v, recall %v; want %+v", n, n.Recall(), want)
	}
}
