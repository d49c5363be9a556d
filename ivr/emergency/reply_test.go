package emergency

import "testing"

func TestReadAnswer(t *testing.T) {
	for want, said := range map[Answer][]string{
		Yes:     {"是", "是的。", "对", "嗯，是的", "好的", "Yes", "yes please"},
		No:      {"不是", "不用了谢谢", "不，不用", "没事没事", "取消吧", "我说错了", "不是不是", "no", "不需要", "不用轉了"},
		Unclear: {"", "我家里", "是这样的我们小区那个电梯坏了", "不是我们家是隔壁邻居家里着火了", "喂", "听不见"},
	} {
		for _, s := range said {
			if got := ReadAnswer(s); got != want {
				t.Errorf("%q is %d, want %d", s, got, want)
			}
		}
	}
}
