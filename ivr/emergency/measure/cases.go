// Package measure tells how well a detector hears danger: it reads utterances whose meaning is known, and
// counts what each layer of the detector makes of them.
package measure

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hotline12345/gateway/ivr/emergency"
)

// Case is an utterance whose meaning is known.
type Case struct {
	Service string // 110, 119, 120, 122, any or none
	Kind    string // how it is said, or which sort of harmless call it is
	Text    string
	Author  string // the file's name
	Line    int
}

// Danger tells whether it is a call for help.
func (c Case) Danger() bool { return c.Service != "none" }

var services = []string{"110", "119", "120", "122", "any", "none"}

// Read reads cases: service, kind and text, with tabs between. A file whose first line names its columns
// may have others too; service may then be called expect or expect_service, and kind note.
func Read(r io.Reader, name string) ([]Case, error) {
	author := strings.TrimSuffix(filepath.Base(name), ".tsv")
	columns := map[string]int{"service": 0, "kind": 1, "text": 2}
	var cases []Case
	var errs []error
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		f := strings.Split(lines.Text(), "\t")
		if n == 1 && !slices.Contains(services, f[0]) {
			columns = heading(f)
			continue
		}
		c, err := parse(f, columns)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s:%d: %w", name, n, err))
			continue
		}
		c.Author, c.Line = author, n
		cases = append(cases, c)
	}
	if err := lines.Err(); err != nil {
		errs = append(errs, fmt.Errorf("%s: %w", name, err))
	}
	return cases, errors.Join(errs...)
}

func heading(names []string) map[string]int {
	columns := map[string]int{}
	for i, name := range names {
		name, _, _ = strings.Cut(name, "(")
		switch name {
		case "expect", "expect_service":
			name = "service"
		case "note":
			name = "kind"
		}
		columns[name] = i
	}
	return columns
}

func parse(f []string, columns map[string]int) (Case, error) {
	get := func(name string) string {
		if i, ok := columns[name]; ok && i < len(f) {
			return strings.TrimSpace(f[i])
		}
		return ""
	}
	c := Case{Service: get("service"), Kind: get("kind"), Text: get("text")}
	switch {
	case !slices.Contains(services, c.Service):
		return c, fmt.Errorf("service %q; write %s", c.Service, strings.Join(services, ", "))
	case c.Text == "":
		return c, errors.New("no text; write service, kind and text with tabs between")
	}
	return c, nil
}

// Authors reads all that a model is trained from, author-*.tsv in a directory, and its source: what a model
// must name to be true to these files and to the detector's lexicon.
func Authors(dir string) ([]Case, [16]byte, error) {
	var source [16]byte
	var cases []Case
	files, err := filepath.Glob(filepath.Join(dir, "author-*.tsv"))
	if err != nil || len(files) == 0 {
		return nil, source, fmt.Errorf("measure: no author-*.tsv in %s: %w", dir, err)
	}
	slices.Sort(files)
	sum := sha256.New()
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, source, err
		}
		sum.Write(b)
		read, err := Read(bytes.NewReader(b), name)
		if err != nil {
			return nil, source, err
		}
		cases = append(cases, read...)
	}
	sum.Write(emergency.Lexicon())
	copy(source[:], sum.Sum(nil))
	return cases, source, nil
}
