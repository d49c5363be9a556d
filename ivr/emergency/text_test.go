package emergency

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestTextIsFolded(t *testing.T) {
	for said, want := range map[string]string{
		"喂，我家廚房著火了！":                     "喂|我家厨房着火了",
		"有人暈倒，後面沒人":                      "有人晕倒|后面没人",
		"ＨＥＬＰ　me, I Can't breathe!!":     "help me |i cant breathe",
		"嗯，那个，我家着火了":                     "我家着火了",
		"额头流血":                           "额头流血",
		"额，额头流血":                         "额头流血",
		"快快快快来":                          "快来",
		"快快来":                            "快快来",
		"帮我转幺幺九":                         "帮我转119",
		"帮我转妖妖灵":                         "帮我转110",
		"我要一一零":                          "我要110",
		"打一百二十":                          "打一百二十",
		"住在五一一零":                         "住在五一一零",
		"电话是1381190":                     "电话是1381190",
		"叫一二二，快":                         "叫122|快",
		"①②③ ":                           "123",
		"call 120 now":                   "call 120 now",
		"我在Wanda Plaza着火 了":              "我在wanda plaza着火了",
		"":                               "",
		"。。。":                            "",
		"\xff着火\xfe了":                    "着火了",
		strings.Repeat("一二", 1000) + "救": string([]rune(strings.Repeat("一二", 1000) + "救")[2001-longest:]),
	} {
		var got text
		got.read(said)
		if s := got.String(); s != want {
			t.Errorf("%q is read as %q; want %q", said, s, want)
		}
	}
}

func FuzzText(f *testing.F) {
	f.Add("喂，我家着火了 help me 一一九")
	d, err := NewWith(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, said string) {
		var got text
		got.read(said)
		if len(got.runes) > longest || len(got.breaks) != len(got.runes) {
			t.Errorf("%d characters and %d breaks of %q", len(got.runes), len(got.breaks), said)
		}
		if s := string(got.runes); !utf8.ValidString(s) {
			t.Errorf("%q is read as %q", said, s)
		}
		d.Explain(said)
	})
}

func TestSoundsThatMerge(t *testing.T) {
	h := han()
	for _, pair := range []string{"找着", "晕运", "火伙"} {
		if r := []rune(pair); h.sound(r[0]) != h.sound(r[1]) {
			t.Errorf("%s do not sound the same", pair)
		}
	}
	for _, pair := range []string{"四是", "您林", "京今", "奴路", "灰飞"} {
		if r := []rune(pair); h.hazy(r[0]) != h.hazy(r[1]) || h.sound(r[0]) == h.sound(r[1]) {
			t.Errorf("%s do not sound alike, or sound the same", pair)
		}
	}
	for _, pair := range []string{"火水", "人车"} {
		if r := []rune(pair); h.hazy(r[0]) == h.hazy(r[1]) {
			t.Errorf("%s sound alike", pair)
		}
	}
}
