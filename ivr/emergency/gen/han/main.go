// Command han makes data/han.txt: the reading of each common character, and which characters are written
// another way. It reads the Unicode character database (Debian: unicode-data), whose licence allows it;
// run it by `go generate ./ivr/emergency`.
package main

import (
	"bufio"
	"compress/bzip2"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

func main() {
	from := flag.String("unicode", "/usr/share/unicode", "where the Unicode character database is")
	to := flag.String("o", "data/han.txt", "the table to write")
	flag.Parse()
	if err := generate(*from, *to); err != nil {
		fmt.Fprintln(os.Stderr, "han:", err)
		os.Exit(1)
	}
}

const head = `# Readings of the characters of GB 2312 without tones, then pairs of a character and how it is folded.
# Made from the Unicode character database, copyright Unicode, Inc., under the Unicode License.
`

// readings are the syllables that the callers' words have, where the database's most frequent is another.
var readings = map[rune]string{'着': "zhao", '血': "xue", '了': "le", '不': "bu", '地': "di", '得': "de", '重': "zhong", '车': "che"}

func generate(from, to string) error {
	common := map[rune]bool{}
	reading := map[rune]string{}
	folds := map[rune]rune{}
	err := unihan(from, "Unihan_IRGSources.txt.bz2", func(r rune, field, value string) {
		if field == "kIRG_GSource" && strings.HasPrefix(value, "G0-") {
			common[r] = true
		}
	})
	if err != nil {
		return err
	}
	err = unihan(from, "Unihan_Readings.txt.bz2", func(r rune, field, value string) {
		if first := strings.FieldsFunc(value, func(c rune) bool { return c == ' ' || c == '(' })[0]; field == "kHanyuPinlu" || field == "kMandarin" && reading[r] == "" {
			reading[r] = toneless(first)
		}
	})
	if err != nil {
		return err
	}
	maps.Copy(reading, readings)
	err = unihan(from, "Unihan_Variants.txt.bz2", func(r rune, field, value string) {
		variants := strings.Fields(value)
		simple := point(variants[len(variants)-1])
		if field == "kSimplifiedVariant" && r <= 0xFFFF && simple != r && common[simple] && (!common[r] || len(variants) == 1) {
			folds[r] = simple
		}
	})
	if err != nil {
		return err
	}
	if err := compatible(from, folds); err != nil {
		return err
	}
	delete(folds, '幺') // the digit one
	folds['著'] = '着'   // 著火 is said more often here than 著名
	return os.WriteFile(to, table(common, reading, folds), 0o644)
}

// compatible adds the part of NFKC that a transcript may have: one character for one, to a letter, a digit
// or a character of the table.
func compatible(from string, folds map[rune]rune) error {
	f, err := os.Open(filepath.Join(from, "UnicodeData.txt"))
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		field := strings.Split(lines.Text(), ";")
		parts := strings.Fields(field[5])
		if len(parts) > 0 && strings.HasPrefix(parts[0], "<") {
			parts = parts[1:]
		}
		r := point(field[0])
		if len(parts) != 1 || r > 0xFFFF {
			continue
		}
		if to := point(parts[0]); to <= 0xFFFF && (to < 0x7F && (unicode.IsLetter(to) || unicode.IsDigit(to)) || unicode.Is(unicode.Han, to)) {
			if simple, ok := folds[to]; ok {
				to = simple
			}
			folds[r] = to
		}
	}
	return lines.Err()
}

func table(common map[rune]bool, reading map[rune]string, folds map[rune]rune) []byte {
	lines := map[string][]rune{}
	for _, r := range slices.Sorted(maps.Keys(common)) {
		if s := reading[r]; s != "" && r <= 0xFFFF {
			lines[s] = append(lines[s], r)
		}
	}
	var b strings.Builder
	b.WriteString(head)
	for _, s := range slices.Sorted(maps.Keys(lines)) {
		fmt.Fprintf(&b, "%s\t%s\n", s, string(lines[s]))
	}
	b.WriteString("=\t")
	for _, r := range slices.Sorted(maps.Keys(folds)) {
		b.WriteString(string([]rune{r, folds[r]}))
	}
	return []byte(b.String() + "\n")
}

// toneless takes the tones from a syllable of pinyin; ü is v, as keyboards have it.
func toneless(s string) string {
	return strings.NewReplacer("ā", "a", "á", "a", "ǎ", "a", "à", "a", "ē", "e", "é", "e", "ě", "e", "è", "e", "ê̄", "e", "ế", "e", "ê̌", "e", "ề", "e",
		"ī", "i", "í", "i", "ǐ", "i", "ì", "i", "ō", "o", "ó", "o", "ǒ", "o", "ò", "o", "ū", "u", "ú", "u", "ǔ", "u", "ù", "u",
		"ü", "v", "ǖ", "v", "ǘ", "v", "ǚ", "v", "ǜ", "v", "ń", "n", "ň", "n", "ǹ", "n", "ḿ", "m", "m̀", "m").Replace(s)
}

func unihan(dir, name string, each func(r rune, field, value string)) error {
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(io.Reader(bzip2.NewReader(f)))
	for lines.Scan() {
		if field := strings.SplitN(lines.Text(), "\t", 3); len(field) == 3 {
			each(point(field[0]), field[1], field[2])
		}
	}
	return lines.Err()
}

// point reads U+4E00 or 4E00; anything else is no character.
func point(s string) rune {
	s, _, _ = strings.Cut(strings.TrimPrefix(s, "U+"), "<")
	n, err := strconv.ParseUint(s, 16, 31)
	if err != nil {
		return unicode.ReplacementChar
	}
	return rune(n)
}
