package prompt

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The languages of the line.
const (
	Chinese = "zh" // Mandarin
	English = "en"
)

// Bounds of a spoken value.
const (
	maxCount  = 9999
	maxDigits = 32
)

// china is the clock of the city: no daylight saving since 1991, so it needs no zone file.
var china = time.FixedZone("Asia/Shanghai", 8*60*60)

// Words are the prompts that say a part: itself, or what a spoken value is made of.
//
//	count:12     0 to 9999, before a measure word: 十二, 一百零三, 两千, but 二十; "one hundred and three"
//	minutes:2    两分钟; "two minutes"; 0 is 不到一分钟
//	digits:110   at most 32, one by one: 幺幺零; "one one zero". '-' and a space are a short pause, and so
//	             are the two in a mobile number; any other character is silent
//	time:T       RFC 3339, said as the city's clock has it: 三月三日九点零五分; "March third at nine oh five A M"
func Words(language, part string) ([]string, error) {
	kind, value, spoken := strings.Cut(part, ":")
	if !spoken {
		return []string{part}, nil
	}
	switch kind {
	case "count", "minutes":
		n, err := strconv.Atoi(value)
		if err != nil || n < 0 || n > maxCount {
			return nil, fmt.Errorf("%q: write a number from 0 to %d after the colon", part, maxCount)
		}
		if kind == "minutes" {
			return minutes(language, n), nil
		}
		return count(language, n), nil
	case "digits":
		if value == "" || len(value) > maxDigits {
			return nil, fmt.Errorf("%q: write 1 to %d digits after the colon", part, maxDigits)
		}
		return digits(language, value), nil
	case "time":
		t, err := time.Parse(time.RFC3339, value)
		if err != nil {
			return nil, fmt.Errorf("%q: write a time such as time:2026-03-03T09:00:00+08:00", part)
		}
		return clock(language, t.In(china)), nil
	}
	return nil, fmt.Errorf("%q: %s is no spoken value; write count, minutes, digits or time", part, kind)
}

func count(language string, n int) []string {
	if language == English {
		return englishNumber(n)
	}
	if n == 2 {
		return []string{"n2liang"} // 两 before a measure word
	}
	return hanNumber(n)
}

func minutes(language string, n int) []string {
	switch {
	case n == 0:
		return []string{"under_minute"}
	case n == 1 && language == English:
		return []string{"n1", "minute"}
	}
	return append(count(language, n), "minutes")
}

// hanNumber says 0 to 9999: 零 stands once for any run of empty places inside, 一 is not said before
// a leading 十, and 2000 is 两千, while 200 is 二百.
func hanNumber(n int) []string {
	if n == 0 {
		return []string{"n0"}
	}
	var words []string
	gap := false
	for _, place := range []int{1000, 100, 10, 1} {
		d := n / place % 10
		if d == 0 {
			gap = len(words) > 0
			continue
		}
		if gap {
			words = append(words, "n0")
			gap = false
		}
		switch {
		case place == 1000 && d == 2:
			words = append(words, "n2liang")
		case place != 10 || d != 1 || len(words) > 0:
			words = append(words, number(d))
		}
		if place > 1 {
			words = append(words, number(place))
		}
	}
	return words
}

// englishNumber says 0 to 9999 as the British do: "one hundred and three".
func englishNumber(n int) []string {
	if n == 0 {
		return []string{"n0"}
	}
	var words []string
	if n >= 1000 {
		words = append(words, number(n/1000), "n1000")
	}
	if n/100%10 > 0 {
		words = append(words, number(n/100%10), "n100")
	}
	rest := n % 100
	if rest > 0 && len(words) > 0 {
		words = append(words, "and")
	}
	return append(words, underHundred(rest)...)
}

func underHundred(n int) []string {
	switch {
	case n == 0:
		return nil
	case n <= 20 || n%10 == 0:
		return []string{number(n)}
	default:
		return []string{number(n / 10 * 10), number(n % 10)}
	}
}

func number(n int) string { return "n" + strconv.Itoa(n) }

func digits(language, value string) []string {
	if isMobile(value) {
		value = value[:3] + "-" + value[3:7] + "-" + value[7:]
	}
	var words []string
	for _, r := range value {
		switch {
		case r == '1' && language != English:
			words = append(words, "n1yao") // 幺, not to be taken for 七
		case r >= '0' && r <= '9':
			words = append(words, number(int(r-'0')))
		case r == '-' || r == ' ':
			words = append(words, "pause")
		}
	}
	return words
}

// isMobile tells a mobile number of China, which is read in groups of three, four and four.
func isMobile(s string) bool {
	if len(s) != 11 || s[0] != '1' {
		return false
	}
	return strings.Trim(s, "0123456789") == ""
}

func clock(language string, t time.Time) []string {
	if language == English {
		return englishClock(t)
	}
	words := append(hanNumber(int(t.Month())), "month")
	words = append(append(words, hanNumber(t.Day())...), "day")
	words = append(append(words, count(Chinese, t.Hour())...), "hour")
	switch m := t.Minute(); {
	case m == 0:
		return words
	case m < 10:
		words = append(words, "n0") // 九点零五分
		fallthrough
	default:
		return append(append(words, hanNumber(m)...), "minute_of_hour")
	}
}

func englishClock(t time.Time) []string {
	words := []string{"month" + strconv.Itoa(int(t.Month()))}
	if d := t.Day(); d <= 20 || d == 30 {
		words = append(words, "day"+strconv.Itoa(d))
	} else {
		words = append(words, number(d/10*10), "day"+strconv.Itoa(d%10))
	}
	hour := (t.Hour()+11)%12 + 1
	words = append(words, "at", number(hour))
	switch m := t.Minute(); {
	case m == 0:
	case m < 10:
		words = append(words, "oh", number(m))
	default:
		words = append(words, underHundred(m)...)
	}
	if t.Hour() < 12 {
		return append(words, "am")
	}
	return append(words, "pm")
}
