package prompt

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

func words(t testing.TB, language, part string) string {
	t.Helper()
	w, err := Words(language, part)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(w, " ")
}

// The golden file shows every number to 120 and the edges beyond; the sums at its end hold all of 0
// to 9999.
func TestNumbersGolden(t *testing.T) {
	var out strings.Builder
	sums := map[string]*strings.Builder{Chinese: {}, English: {}}
	for n := range maxCount + 1 {
		part := "count:" + strconv.Itoa(n)
		zh, en := words(t, Chinese, part), words(t, English, part)
		fmt.Fprintln(sums[Chinese], zh)
		fmt.Fprintln(sums[English], en)
		if n <= 120 || n%100 < 3 && n < 1200 || n%1000 < 3 || n%1000 == 10 || n%1000 == 12 || n%1111 == 0 || n == 9999 {
			fmt.Fprintf(&out, "%d\t%s\t%s\n", n, zh, en)
		}
	}
	for _, language := range []string{Chinese, English} {
		fmt.Fprintf(&out, "0 to %d in %s\t%x\n", maxCount, language, sha256.Sum256([]byte(sums[language].String())))
	}
	const file = "testdata/numbers.golden"
	if *update {
		if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), out.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// Each number that is said is understood as the same number again, by the rules of each language
// alone.
func TestNumbersAreUnderstood(t *testing.T) {
	for n := range maxCount + 1 {
		part := "count:" + strconv.Itoa(n)
		if got := hear(words(t, Chinese, part)); got != n {
			t.Fatalf("%d is said %s and heard as %d", n, words(t, Chinese, part), got)
		}
		if got := hear(words(t, English, part)); got != n {
			t.Fatalf("%d is said %s and heard as %d", n, words(t, English, part), got)
		}
	}
}

// hear adds up what was said: a unit multiplies what came before it, a bare ten is one ten.
func hear(said string) int {
	total, digit := 0, 0
	for word := range strings.FieldsSeq(said) {
		switch word {
		case "and":
		case "n2liang":
			digit = 2
		case "n10", "n100", "n1000":
			unit, _ := strconv.Atoi(word[1:])
			total += max(digit, 1) * unit
			digit = 0
		default:
			n, _ := strconv.Atoi(word[1:])
			digit += n
		}
	}
	return total + digit
}

func TestWords(t *testing.T) {
	c := builtIn(t)
	tests := []struct{ part, zh, en string }{
		{"count:2", "两", "two"},
		{"count:12", "十二", "twelve"},
		{"count:20", "二十", "twenty"},
		{"count:21", "二十一", "twenty one"},
		{"count:103", "一百零三", "one hundred and three"},
		{"count:110", "一百一十", "one hundred and ten"},
		{"count:200", "二百", "two hundred"},
		{"count:2002", "两千零二", "two thousand and two"},
		{"count:2020", "两千零二十", "two thousand and twenty"},
		{"count:1500", "一千五百", "one thousand five hundred"},
		{"minutes:0", "不到一分钟", "less than a minute"},
		{"minutes:1", "一分钟", "one minute"},
		{"minutes:2", "两分钟", "two minutes"},
		{"minutes:22", "二十二分钟", "twenty two minutes"},
		{"digits:110", "幺幺零", "one one zero"},
		{"digits:12345", "幺二三四五", "one two three four five"},
		{"digits:P2026", "二零二六", "two zero two six"},
		{"time:2026-03-03T09:00:00+08:00", "三月三日九点", "March third at nine A M"},
		{"time:2026-12-31T14:05:00+08:00", "十二月三十一日十四点零五分", "December thirty first at two oh five P M"},
		{"time:2026-10-20T00:30:00+08:00", "十月二十日零点三十分", "October twentieth at twelve thirty A M"},
		{"time:2026-02-02T04:45:00Z", "二月二日十二点四十五分", "February second at twelve forty five P M"},
		{"time:2026-06-30T18:10:00+08:00", "六月三十日十八点十分", "June thirtieth at six ten P M"},
	}
	for _, tt := range tests {
		if got := c.Text(Chinese, tt.part); got != tt.zh {
			t.Errorf("%s in Mandarin: %s; want %s", tt.part, got, tt.zh)
		}
		if got := c.Text(English, tt.part); got != tt.en {
			t.Errorf("%s in English: %s; want %s", tt.part, got, tt.en)
		}
	}
	if got := words(t, Chinese, "digits:13800138000"); strings.Count(got, "pause") != 2 {
		t.Errorf("a mobile number is said %s; want two pauses", got)
	}
	if got := words(t, Chinese, "digits:0571-12345"); strings.Count(got, "pause") != 1 {
		t.Errorf("a number with a dash is said %s; want one pause", got)
	}
}

func TestWordsRefuse(t *testing.T) {
	for _, part := range []string{"count:", "count:-1", "count:10000", "count:x", "minutes:1.5", "digits:", "digits:" + strings.Repeat("1", 33),
		"time:tomorrow", "time:", "name:x", ":"} {
		if w, err := Words(Chinese, part); err == nil {
			t.Errorf("%q is said %v; want an error", part, w)
		}
	}
}

// Whatever is said, the catalogue can say it in that language.
func TestEveryWordHasAVoice(t *testing.T) {
	c := builtIn(t)
	parts := []string{"minutes:0", "minutes:1", "digits:0123456789-"}
	for n := range maxCount + 1 {
		parts = append(parts, "count:"+strconv.Itoa(n))
	}
	for day := 1; day <= 31; day++ {
		parts = append(parts, fmt.Sprintf("time:2026-%02d-%02dT%02d:%02d:00+08:00", min(day, 12), min(day, 28), day%24, day*59/31))
	}
	for day := 29; day <= 31; day++ {
		parts = append(parts, fmt.Sprintf("time:2026-01-%dT00:00:00+08:00", day))
	}
	for _, language := range []string{Chinese, English} {
		for _, part := range parts {
			for word := range strings.FieldsSeq(words(t, language, part)) {
				if c.clips[language+"/"+word] == nil && c.clips[common+"/"+word] == nil {
					t.Errorf("%s in %s: no voice for %s", part, language, word)
				}
			}
		}
	}
}

func FuzzWords(f *testing.F) {
	for _, part := range []string{"count:3", "minutes:5", "digits:12345", "time:2026-03-03T09:00:00+08:00", "welcome", "count:9999"} {
		f.Add(part)
	}
	c := builtIn(f)
	f.Fuzz(func(t *testing.T, part string) {
		for _, language := range []string{Chinese, English} {
			if w, err := Words(language, part); err == nil && len(w) > 2*maxDigits {
				t.Errorf("%q: %d words", part, len(w))
			}
			_ = c.Say(language, part)
			_ = c.Text(language, part)
		}
	})
}
