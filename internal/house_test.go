// Package internal has no code of its own: this test holds the house to its plan.
package internal

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
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
}

func sources(t *testing.T) (files []source) {
	t.Helper()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		switch name := d.Name(); {
		case d.IsDir() && rel != "." && (strings.HasPrefix(name, ".") || name == "testdata" || name == "data" || name == "bin" || name == "deploy"):
			return filepath.SkipDir
		case d.IsDir() || filepath.Ext(name) != ".go":
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		files = append(files, source{rel, filepath.ToSlash(filepath.Dir(rel)), f})
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
