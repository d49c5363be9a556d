package emergency_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/ivr/emergency"
	"github.com/hotline12345/gateway/ivr/emergency/classify"
	"github.com/hotline12345/gateway/ivr/emergency/measure"
)

const authors = "testdata/authors"

func model(t testing.TB) ([]byte, *classify.Model) {
	t.Helper()
	b, err := os.ReadFile("data/model.bin")
	if err != nil {
		t.Fatal(err)
	}
	m, err := classify.Load(b)
	if err != nil {
		t.Fatal(err)
	}
	return b, m
}

// The model is the one that the authors' files and the lexicon make; else `go generate` was forgotten.
func TestModelIsTrueToItsSource(t *testing.T) {
	b, m := model(t)
	_, source, err := measure.Authors(authors)
	if err != nil {
		t.Fatal(err)
	}
	if m.Source != source {
		t.Error("the model was trained of other text: run go generate ./ivr/emergency")
	}
	if len(b) > 2<<20 {
		t.Errorf("the model has %d bytes", len(b))
	}
}

// With HOTLINE_SOAK=1 the whole model is trained anew, and must come out byte for byte.
func TestModelIsReproducible(t *testing.T) {
	if os.Getenv("HOTLINE_SOAK") == "" {
		t.Skip("trains for a minute: HOTLINE_SOAK=1")
	}
	out := filepath.Join(t.TempDir(), "model.bin")
	if said, err := exec.CommandContext(t.Context(), "go", "run", "./gen/train", "-o", out).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	again, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := model(t); !bytes.Equal(b, again) {
		t.Error("the training gives another model")
	}
}

func read(t testing.TB, pattern string) []measure.Case {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(authors, pattern))
	if err != nil {
		t.Fatal(err)
	}
	var cases []measure.Case
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		c, err := measure.Read(f, name)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		cases = append(cases, c...)
	}
	return cases
}

// bare is an utterance by which two are known to be the same.
func bare(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return unicode.ToLower(r)
		}
		return -1
	}, s)
}

// The authors' files are in order: there is enough of each sort, no utterance twice, and none of them made
// by filling a form: no run of ten characters is in more than one utterance of a hundred of an author.
func TestAuthors(t *testing.T) {
	train, test := read(t, "author-*.tsv"), read(t, "test-*.tsv")
	if len(train) < 5900 || len(train)+len(test) < 8000 {
		t.Errorf("%d utterances to train of, %d to test on", len(train), len(test))
	}
	count := map[string]int{}
	where := map[string]string{}
	runs, whole := map[string]int{}, map[string]int{}
	for _, c := range append(train, test...) {
		count[c.Author[:4]+c.Service]++
		whole[c.Author]++
		at := fmt.Sprintf("%s:%d", c.Author, c.Line)
		text := bare(c.Text)
		if other, ok := where[text]; ok {
			t.Errorf("%s says what %s says: %s", at, other, c.Text)
		}
		where[text] = at
		if c.Service == "any" || strings.TrimSpace(c.Kind) == "" {
			t.Errorf("%s: service %q, kind %q", at, c.Service, c.Kind)
		}
		seen := map[string]bool{}
		for runes := []rune(text); len(runes) >= 10; runes = runes[1:] {
			if run := string(runes[:10]); runes[0] > unicode.MaxLatin1 && !seen[run] {
				seen[run] = true
				runs[c.Author+" "+run]++
			}
		}
	}
	for key, n := range runs {
		author, run, _ := strings.Cut(key, " ")
		if n > 3 && n*100 > whole[author] {
			t.Errorf("%s: %q is in %d of %d utterances", author, run, n, whole[author])
		}
	}
	if count["testnone"] < 3000 {
		t.Errorf("%d harmless utterances to test on", count["testnone"])
	}
	for _, svc := range session.Services() {
		if count["auth"+string(svc)] < 250 || count["test"+string(svc)] < 100 {
			t.Errorf("%s: %d utterances to train of, %d to test on", svc, count["auth"+string(svc)], count["test"+string(svc)])
		}
	}
}

// The bar, on authors of whom neither the model nor its thresholds know anything. A tenth of their text is
// judged here; `hotline emergency match` judges all of it.
func TestBarOnUnseenAuthors(t *testing.T) {
	d, err := emergency.New()
	if err != nil {
		t.Fatal(err)
	}
	var some []measure.Case
	for i, c := range read(t, "test-*.tsv") {
		if i%10 == 0 {
			some = append(some, c)
		}
	}
	n := measure.Measure(d, some).By[emergency.Both]
	if n.Recall() < 0.85 || n.FalseTransfers*100 > n.Harmless*2 || n.FalseAsked*100 > n.Harmless*5 {
		t.Errorf("recall %.3f, %d false transfers and %d false confirms in %d", n.Recall(), n.FalseTransfers, n.FalseAsked, n.Harmless)
	}
}

func BenchmarkDetect(b *testing.B) {
	d, err := emergency.New()
	if err != nil {
		b.Fatal(err)
	}
	cases := read(b, "author-*.tsv")
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		d.Detect(cases[i%len(cases)].Text)
	}
}
