package emergency

import (
	"strings"
	"testing"

	"github.com/hotline12345/gateway/internal/session"
)

func TestOperatorsFileSaysWhatIsWrong(t *testing.T) {
	for line, want := range map[string]string{
		"119\t1\t0":            "own.tsv:2: 3 columns; write service, tier, match and phrase",
		"118\t1\t0\t着火了":       `own.tsv:2: service "118"; write 110, 119, 120, 122 or any`,
		"119\t9\t0\t着火了":       `own.tsv:2: tier "9"; write 1 for danger`,
		"119\t1\tx\t着火了":       `own.tsv:2: match "x"; write 0 for as written`,
		"119\t1\t0\t火":         `own.tsv:2: phrase "火"; write at least two characters for danger`,
		"119\t1\t0\t":          `own.tsv:2: phrase ""; write at least two`,
		"119\t0\t0\t消防通道":      `own.tsv:2: kind "119"; write one of compound`,
		"compound\t1\t0\t消防通道": `own.tsv:2: service "compound"; write 110`,
		"119\t1\t0\t~着火":       `own.tsv:2: phrase "~着火"; write ~ between two words only`,
		"119\t1\t0\t着火\xff了":   "own.tsv:2: the phrase is no UTF-8; save the file as UTF-8",
		"119\t1\t0\t第一句":       `own.tsv:2: "第一句" is there twice; delete this line`,
		"119\t1\t0\t" + strings.Repeat("火", 30) + "着" + strings.Repeat("火着", 30): "write at most 24 characters",
	} {
		_, err := ReadWords(strings.NewReader("119\t1\t0\t第一句\n"+line+"\n"), "own.tsv")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want %s", line, err, want)
		}
	}
	_, err := ReadWords(strings.NewReader("1\n2\n"), "own.tsv")
	if err == nil || !strings.Contains(err.Error(), "own.tsv:1:") || !strings.Contains(err.Error(), "own.tsv:2:") {
		t.Errorf("not all lines are named: %v", err)
	}
	if _, err := ReadWords(strings.NewReader(strings.Repeat("x", 1<<17)), "own.tsv"); err == nil {
		t.Error("an endless line is read")
	}
}

// What an operator writes acts whatever the classifier says: a harmless place name becomes a transfer, and
// a gap, a sound and a suppressor do as documented.
func TestOperatorsWordsAct(t *testing.T) {
	words, err := ReadWords(strings.NewReader("\ufeff# ours\n119\t1\t2\t老虎滩放炮\n120\t1\t0\t三号~发蓝\n122\t2\t0\t青蛙路\ncompound\t0\t0\t着火了酒吧\n"), "own.tsv")
	if err != nil {
		t.Fatal(err)
	}
	d, err := New(words...)
	if err != nil {
		t.Fatal(err)
	}
	for said, want := range map[string]Verdict{
		"老虎滩放炮":     {Action: Transfer, Service: session.Fire},
		"老福滩放炮":     {Action: Transfer, Service: session.Fire}, // as a recogniser hears it
		"三号病人发蓝":    {Action: Transfer, Service: session.Medical},
		"快点青蛙路":     {Action: Confirm, Service: session.Road},
		"没有老虎滩放炮":   {},
		"着火了酒吧几点开门": {},
	} {
		if got := d.Detect(said); got.Action != want.Action || got.Service != want.Service {
			t.Errorf("%s: %v %s; want %v %s", said, got.Action, got.Service, want.Action, want.Service)
		}
	}
}
