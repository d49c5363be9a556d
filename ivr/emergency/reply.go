package emergency

import "strings"

// Answer is what a caller says to a question.
type Answer byte

const (
	Unclear Answer = iota
	Yes
	No
)

// yes and no are whole answers, as they are compared; refusals are enough in a short one.
var (
	yes = set("是", "是的", "是是", "对", "对的", "对对", "需要", "要", "要的", "好", "好的", "可以", "快", "快点", "快转", "转", "转接", "嗯是", "yes", "yeah", "yes please")
	no  = set("不", "不要", "没有", "没事", "没", "别转", "no", "no no", "cancel", "stop")

	refusals = []string{"不是", "不用", "不需要", "取消", "没事", "说错", "误会", "弄错", "别转", "不要转"}
)

// longestAnswer is how long an answer is at most, in characters: more is a report.
const longestAnswer = 10

func set(words ...string) map[string]bool {
	m := map[string]bool{}
	for _, w := range words {
		m[w] = true
	}
	return m
}

// ReadAnswer reads a short sentence as an answer to whether help is to be called. A sentence that speaks of danger is
// none, which whoever asks finds out first.
func ReadAnswer(sentence string) Answer {
	var t text
	t.read(strings.ToLower(sentence))
	said := t.String()
	switch {
	case len(t.runes) > longestAnswer:
		return Unclear
	case no[said]:
		return No
	case yes[said]:
		return Yes
	}
	for _, r := range refusals {
		if strings.Contains(said, r) {
			return No
		}
	}
	return Unclear
}
