package emergency

import "strings"

// longestNumber is how many digits in a row may leave: those of a service, and no more.
const longestNumber = 3

// Mask hides the numbers in words, written and spoken, in one run or divided: a phone, an identity card.
func Mask(words string) string {
	runes := []rune(words)
	for i := 0; i < len(runes); i++ {
		end, digits := i, 0
		for end < len(runes) && strings.ContainsRune("0123456789０１２３４５６７８９零〇一二三四五六七八九幺两 -", runes[end]) {
			if runes[end] != ' ' && runes[end] != '-' {
				digits++
			}
			end++
		}
		if digits > longestNumber {
			for k := i; k < end; k++ {
				runes[k] = '*'
			}
		}
		i = max(i, end)
	}
	return string(runes)
}
