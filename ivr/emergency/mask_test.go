package emergency

import "testing"

func TestMask(t *testing.T) {
	for in, want := range map[string]string{
		"我的电话13800138000": "我的电话***********", "打110": "打110", "一三八零零一三八": "********", "138 0013": "********", "着火了": "着火了",
	} {
		if got := Mask(in); got != want {
			t.Errorf("%q became %q", in, got)
		}
	}
}
