package trunk

import (
	"strings"
	"testing"
)

func hangzhou(t testing.TB) *Plan {
	t.Helper()
	p, err := NewPlan("0571", []string{"12345", "0571-88880000"})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestParse(t *testing.T) {
	p := hangzhou(t)
	for raw, want := range map[string]string{
		"13812345678":                    "+8613812345678",
		"013812345678":                   "+8613812345678",
		"+8613812345678":                 "+8613812345678",
		"+86 138-1234-5678":              "+8613812345678",
		"8613812345678":                  "+8613812345678",
		"008613812345678":                "+8613812345678",
		"%2B8613812345678":               "+8613812345678",
		"057188881234":                   "+8657188881234",
		"0571-88881234":                  "+8657188881234",
		"(0571)88881234":                 "+8657188881234",
		"57188881234":                    "+8657188881234",
		"+86057188881234":                "+8657188881234",
		"88881234":                       "+8657188881234",
		"8881234":                        "+865718881234",
		"86881234":                       "+8657186881234", // 86 begins a local number as well
		"01088881234":                    "+861088881234",
		"1088881234":                     "+861088881234",
		"02188881234":                    "+862188881234",
		"12345":                          "+8657112345",
		"+8612345":                       "+8657112345",
		"012345":                         "+8657112345",
		"057112345":                      "+8657112345",
		"57112345":                       "+8657112345",
		"0571-12345":                     "+8657112345",
		"8657112345":                     "+8657112345",
		"+8657112345":                    "+8657112345",
		"01012345":                       "+861012345", // another city's
		"110":                            "+86110",
		"0571110":                        "+86571110",
		"95588":                          "+8695588",
		"10086":                          "+8610086",
		"4001234567":                     "+864001234567",
		"+14155550123":                   "+14155550123",
		"0014155550123":                  "+14155550123",
		"1064812345678":                  "+861064812345678",
		"88881234;phone-context=+86571":  "+8657188881234",
		"057188881234;phone-context=+86": "+8657188881234",
		"13812345678;phone-context=ims.example.com": "+8613812345678",
		"13812345678;ext=12":                        "+8613812345678",
		"":                                          "",
		"anonymous":                                 "",
		"alice":                                     "",
		"+":                                         "",
		"+0123456789":                               "",
		"+1234567890123456":                         "",
		"+86123":                                    "+86123",
		"128":                                       "+86128",
		"123456789":                                 "",
		"1381234567":                                "",
		"1٣812345678":                               "", // digits of another script
		strings.Repeat("1", 200):                    "",
	} {
		if got := p.Parse(raw); got.E164 != want {
			t.Errorf("Parse(%q) = %q, want %q", raw, got.E164, want)
		}
	}
	if got := p.Parse("0571-88881234;x=1").Raw; got != "0571-88881234" {
		t.Errorf("raw value: %q", got)
	}
}

func TestPlanRefusesNonsense(t *testing.T) {
	for _, area := range []string{"", "0", "5", "57", "5711", "abc", "1"} {
		if _, err := NewPlan(area, nil); err == nil {
			t.Errorf("area %q was taken", area)
		}
	}
	if _, err := NewPlan("571", []string{"hotline"}); err == nil || !strings.HasPrefix(err.Error(), "own_numbers[0]: ") {
		t.Errorf("error: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"+8613812345678", "0571-12345", "88881234;phone-context=+86571", "%2", ";;=", "86"} {
		f.Add(s)
	}
	p := hangzhou(f)
	f.Fuzz(func(t *testing.T, s string) {
		n := p.Parse(s)
		if len(n.Raw) > maxRaw {
			t.Errorf("raw value of %d bytes", len(n.Raw))
		}
		if n.E164 == "" {
			return
		}
		d, plus, ok := plain(n.E164)
		if !ok || !plus || n.E164 != "+"+d || len(d) < 3 || len(d) > 15 {
			t.Errorf("Parse(%q) = %q", s, n.E164)
		}
		// Normalising is idempotent: a number means the same wherever it is read again.
		if again := p.Parse(n.E164); again.E164 != n.E164 {
			t.Errorf("Parse(%q) = %q, and that again = %q", s, n.E164, again.E164)
		}
	})
}
