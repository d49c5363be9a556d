// Package internal has no code of its own: this test holds the house to its plan.
package internal

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/hotline12345/gateway/"

// rule forbids an import, with its reason. Paths are prefixes of whole elements; those with a dot in
// their first element are other modules.
type rule struct {
	from   []string // who may not; "" is everyone
	not    []string // whom the rule does not bind
	deny   []string
	reason string
}

var rooms = []string{"sip", "ivr", "queue", "abuse"}

var rules = []rule{
	{from: []string{"sip"}, deny: []string{"ivr", "queue", "abuse"}, reason: "rooms know the call and the session, never one another"},
	{from: []string{"ivr"}, deny: []string{"sip", "queue", "abuse"}, reason: "rooms know the call and the session, never one another"},
	{from: []string{"queue"}, deny: []string{"sip", "ivr", "abuse"}, reason: "rooms know the call and the session, never one another"},
	{from: []string{"abuse"}, deny: []string{"sip", "ivr", "queue"}, reason: "rooms know the call and the session, never one another"},
	{from: []string{"internal"}, deny: rooms, reason: "the ground carries the rooms and knows none of them"},
	{from: []string{"internal/recording"}, deny: []string{"internal/intake", "internal/asterisk"}, reason: "a recording does not know who is told of it"},
	{from: []string{"internal/intake"}, deny: []string{"internal/recording", "internal/asterisk"}, reason: "the outbox takes a recording by a small interface"},
	{from: []string{"internal/call", "internal/store", "internal/audit", "internal/journal", "internal/staff"}, deny: []string{"internal/session"},
		reason: "what a call stands on does not know the call's story"},
	{from: []string{"internal/call"}, not: []string{"internal/call/calltest"}, deny: []string{"internal/store", "internal/audit", "internal/journal", "internal/staff", "*"},
		reason: "the shared vocabulary needs the standard library alone"},
	{from: []string{""}, not: []string{"sip"}, deny: []string{"github.com/emiago/sipgo"}, reason: "SIP ends under sip/, so that the stack can be replaced"},
	{from: []string{""}, not: []string{"internal/store", "queue", "abuse"}, deny: []string{"github.com/redis/go-redis"}, reason: "keys and scripts belong to the room that owns them"},
	{from: []string{""}, not: []string{"internal/asterisk"}, deny: []string{"github.com/CyCoreSystems/ari"}, reason: "the library's logging and errors end at this package"},
	{from: []string{"internal", "sip", "ivr", "queue", "abuse", "configs"}, deny: []string{"cmd"}, reason: "the roof rests on the rooms"},
}

// source is a Go file of the project.
type source struct {
	path string // from the root, with slashes
	dir  string
	file *ast.File
	set  *token.FileSet
}

func (s source) lines(n ast.Node) int {
	return s.set.Position(n.End()).Line - s.set.Position(n.Pos()).Line + 1
}

func sources(t *testing.T) (files []source) {
	t.Helper()
	for _, path := range walk(t, ".go") {
		set := token.NewFileSet()
		f, err := parser.ParseFile(set, filepath.Join("..", path), nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		path = filepath.ToSlash(path)
		files = append(files, source{path, filepath.ToSlash(filepath.Dir(path)), f, set})
	}
	return files
}

// walk lists the project's own files with one of the extensions, from the root.
func walk(t *testing.T, exts ...string) (files []string) {
	t.Helper()
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		switch name := d.Name(); {
		case d.IsDir() && (name == "testdata" || name == "data" || name == "bin" || name != ".." && strings.HasPrefix(name, ".")):
			return filepath.SkipDir
		case !d.IsDir() && slices.Contains(exts, filepath.Ext(name)):
			rel, err := filepath.Rel("..", path)
			files = append(files, rel)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestImports(t *testing.T) {
	for _, s := range sources(t) {
		if strings.HasSuffix(s.path, "_test.go") {
			continue // a test may stand two rooms beside one another
		}
		for _, imp := range s.file.Imports {
			path, err := strconv.Unquote(imp.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range rules {
				if under(s.dir, r.from) && !under(s.dir, r.not) && denied(path, r.deny) {
					t.Errorf("%s imports %s: %s", s.path, path, r.reason)
				}
			}
		}
	}
}

// denied tells whether an import is one of those forbidden; "*" is every other module.
func denied(path string, deny []string) bool {
	inside, own := strings.CutPrefix(path, module)
	for _, d := range deny {
		switch {
		case d == "*":
			first, _, _ := strings.Cut(path, "/")
			if !own && strings.Contains(first, ".") {
				return true
			}
		case own && under(inside, []string{d}), !own && under(path, []string{d}):
			return true
		}
	}
	return false
}

func under(path string, prefixes []string) bool {
	for _, p := range prefixes {
		if p == "" || path == p || strings.HasPrefix(path, p+"/") {
			return true
		}
	}
	return false
}

func TestEveryPackageIsDocumented(t *testing.T) {
	documented, name := map[string]bool{}, map[string]string{}
	for _, s := range sources(t) {
		if strings.HasSuffix(s.path, "_test.go") && s.dir != "internal" {
			continue
		}
		name[s.dir] = s.file.Name.Name
		if d := s.file.Doc.Text(); strings.HasPrefix(d, "Package "+s.file.Name.Name+" ") || strings.HasPrefix(d, "Command ") {
			documented[s.dir] = true
		}
	}
	for dir := range name {
		if !documented[dir] {
			t.Errorf("%s: no file begins with a comment `// Package %s …`", dir, name[dir])
		}
	}
}

// The most lines that code may have without a reason. A test's table may be as long as it needs.
const (
	maxFile = 500
	maxFunc = 60
)

// TestLongCodeSaysWhy wants a comment that begins with "Long:" and tells the reason: anywhere in a long
// file, directly above a long function.
func TestLongCodeSaysWhy(t *testing.T) {
	for _, s := range sources(t) {
		if strings.HasSuffix(s.path, "_test.go") {
			continue
		}
		if n := s.lines(s.file); n > maxFile && !slices.ContainsFunc(s.file.Comments, saysWhy) {
			t.Errorf("%s has %d lines: split it by concept, or say why not in a comment `// Long: …`", s.path, n)
		}
		for _, d := range s.file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if ok && s.lines(f) > maxFunc && !saysWhy(f.Doc) {
				t.Errorf("%s: %s has %d lines: split it, or say why not above it in a comment `// Long: …`", s.path, f.Name.Name, s.lines(f))
			}
		}
	}
}

var reason = regexp.MustCompile(`(?m)^Long: \S+ \S+`)

func saysWhy(c *ast.CommentGroup) bool { return c != nil && reason.MatchString(c.Text()) }

// TestNothingIsLeftOver looks for notes to oneself, and for names of the machines that a file was made on.
// The names are put together here, so that this file does not hold them.
func TestNothingIsLeftOver(t *testing.T) {
	notes := regexp.MustCompile(`\b(` + "TO" + "DO|FIX" + "ME|XX" + `X)\b`)
	places := []string{"/wo" + "rk/", "proxy." + "golang.org", "sum." + "golang.org", "registry." + "npmjs.org",
		"py" + "pi.org", "python" + "hosted.org", "static.crates" + ".io", "deb." + "debian.org", "docker" + ".io", "ghcr" + ".io"}
	for _, path := range walk(t, ".go", ".md", ".yml", ".yaml") {
		text, err := os.ReadFile(filepath.Join("..", path))
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(text), "\n") {
			if note := notes.FindString(line); note != "" {
				t.Errorf("%s:%d: %s: do it, or write it down where work is planned", path, i+1, note)
			}
			for _, place := range places {
				if strings.Contains(line, place) {
					t.Errorf("%s:%d: %s is no part of the project", path, i+1, place)
				}
			}
		}
	}
}

func TestTopLevelIsTheDesignCard(t *testing.T) {
	entries, err := os.ReadDir("..")
	if err != nil {
		t.Fatal(err)
	}
	known := " cmd sip ivr queue abuse configs deploy internal docs bin data go.mod go.sum README.md Makefile LICENSE CHANGELOG.md "
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") && !strings.Contains(known, " "+e.Name()+" ") {
			t.Errorf("%s stands at the top level; it belongs into a room", e.Name())
		}
	}
}
