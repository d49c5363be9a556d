package abuse

import (
	"os"
	"strings"
	"testing"
)

const casesFile = "testdata/art29-cases.tsv"

func TestWorkedCases(t *testing.T) {
	b, err := os.ReadFile(casesFile)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]string{}
	for line := range strings.Lines(string(b)) {
		if f := strings.Split(strings.TrimSuffix(line, "\n"), "\t"); len(f) == 8 {
			want[f[0]] = f
		}
	}
	p, n := p0(t), 0
	for s, err := range ReadScenarios(strings.NewReader(string(b)), casesFile) {
		if err != nil {
			t.Fatal(err)
		}
		n++
		if got, f := Simulate(p, s.Events, s.Query), want[s.ID]; string(got) != f[6] {
			t.Errorf("%s %s: %s, want %s: %s", s.ID, f[3], got, f[6], f[7])
		}
	}
	if n != 20 {
		t.Errorf("%d cases, want 20", n)
	}
}

const goodEvents = `[{"t":"2026-03-02T09:00:00+08:00","e":"snapshot"}]`
const goodQuery = `{"t":"2026-03-02T09:00:00+08:00","q":"invite","n":"a","idc":"verified"}`

func TestBadCasesSayLineAndMend(t *testing.T) {
	event := func(rest string) string {
		return "A\t" + `[{"t":"2026-03-02T09:00:00+08:00",` + rest + "}]\t" + goodQuery
	}
	query := func(q string) string { return "A\t" + goodEvents + "\t" + q }
	for line, want := range map[string]string{
		"A\t[]":                            "there are 2 fields where 3 columns are named",
		"\t[]\t" + goodQuery:               "id: it is empty",
		"A\t{}\t" + goodQuery:              "given_events_json: ",
		"A\t[{}]\t" + goodQuery:            "given_events_json[0].t: it is missing",
		event(`"e":"hangup"`):              `given_events_json[0].e: there is no event "hangup"`,
		event(`"e":"call","n":"a","id":1`): "given_events_json: ",
		event(`"e":"call","n":"a","id":"c","idc":"vip"`):                                        "given_events_json[0].idc: the event call needs it; write one of verified",
		event(`"e":"remind","n":"a","call":"c","kind":"29-3"`):                                  "[0].kind: the event remind needs it; write 29-1 or 29-2",
		event(`"e":"mark","n":"a","call":"c","kind":"rude"`):                                    "[0].kind: the event mark needs it; write one of no_request",
		event(`"e":"approve","n":"a","role":"supervisor"`):                                      "[0].by: ",
		event(`"e":"decision","n":"a","level":4`):                                               "[0].level: ",
		event(`"e":"appeal_decide","n":"a","result":"overturnd"`):                               "[0].result: ",
		event(`"e":"redis","state":"slow"`):                                                     "[0].state: the event redis needs it; write up or down",
		event(`"e":"load","occ":97`):                                                            "[0].occ: ",
		event(`"e":"call","n":"a","id":"c","idc":"verified","end":"2026-03-02T08:00:00+08:00"`): "[0].t: the call was answered or ended before it began",
		query(`[]`):             "query_json: ",
		query(`{"q":"invite"}`): "query_json.t: it is missing",
		query(`{"t":"2026-03-02T09:00:00+08:00","q":"invite"}`):                      "query_json.n: it is missing",
		query(`{"t":"2026-03-02T09:00:00+08:00","q":"invite","n":"a"}`):              `query_json.idc: "" is none; write one of verified`,
		query(`{"t":"2026-03-02T09:00:00+08:00","q":"approve","n":"a","by":"sup1"}`): "query_json.by: ",
		query(`{"t":"2026-03-02T09:00:00+08:00","q":"why","n":"a"}`):                 `query_json.q: there is no query "why"`,
	} {
		text := "# a comment\nid\tgiven_events_json\tquery_json\n" + line + "\nB\t" + goodEvents + "\t" + goodQuery + "\r\n"
		var errs []string
		var ids []string
		for s, err := range ReadScenarios(strings.NewReader(text), "f.tsv") {
			if err != nil {
				errs = append(errs, err.Error())
			} else {
				ids = append(ids, s.ID)
			}
		}
		if len(errs) != 1 || !strings.HasPrefix(errs[0], "f.tsv:3: ") || !strings.Contains(errs[0], want) {
			t.Errorf("%s: %q, want %q", line, errs, want)
		}
		if len(ids) != 1 || ids[0] != "B" {
			t.Errorf("%s: %v was read behind it, want B", line, ids)
		}
	}
}

func TestBadFilesOfCases(t *testing.T) {
	many := "[" + strings.Repeat(`{"t":"2026-03-02T09:00:00+08:00","e":"snapshot"},`, maxCaseEvents+1)
	for text, want := range map[string]string{
		"":                       "f.tsv:1: there are no cases",
		"# nothing\n":            "f.tsv:2: there are no cases",
		"id\tevents\n":           `f.tsv:1: there is no column "given_events_json"`,
		"\ufeffid\tquery_json\n": `f.tsv:1: there is no column "given_events_json"`,
		"id\tgiven_events_json\tquery_json\n" + strings.Repeat("x", maxCaseLine+1):                          "f.tsv:2: the line is longer than",
		"id\tgiven_events_json\tquery_json\nA\t" + strings.TrimSuffix(many, ",") + "]\t" + goodQuery + "\n": "f.tsv:2: given_events_json: there are 10001 events; write at most 10000",
	} {
		n := 0
		for _, err := range ReadScenarios(strings.NewReader(text), "f.tsv") {
			if n++; err == nil || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("%.40q: %v, want %s", text, err, want)
			}
		}
		if n != 1 {
			t.Errorf("%.40q: %d answers, want 1", text, n)
		}
	}
}

func TestEveryEventHasAHint(t *testing.T) {
	for kind, needs := range eventNeeds {
		for _, need := range needs {
			if hint[need] == "" {
				t.Errorf("%s needs %q, and nothing says what to write", kind, need)
			}
		}
	}
}

// FuzzReadScenarios: whatever is read is answered, and the second time alike.
func FuzzReadScenarios(f *testing.F) {
	b, err := os.ReadFile(casesFile)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(b))
	f.Add("id\tgiven_events_json\tquery_json\nA\t" + goodEvents + "\t" + goodQuery)
	f.Add("id\tgiven_events_json\tquery_json\nA\tnull\t{}\n\t\t")
	p := p0(f)
	f.Fuzz(func(t *testing.T, text string) {
		for s, err := range ReadScenarios(strings.NewReader(text), "f.tsv") {
			if err != nil {
				if !strings.HasPrefix(err.Error(), "f.tsv:") {
					t.Fatalf("%v has no line", err)
				}
				continue
			}
			if a, b := Simulate(p, s.Events, s.Query), Simulate(p, s.Events, s.Query); a == "" || a != b {
				t.Fatalf("%q, then %q", a, b)
			}
		}
	})
}
