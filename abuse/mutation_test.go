package abuse

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// engineFiles are the decision engine: what is pure, and decides.
var engineFiles = []string{"engine.go", "event.go", "fold.go", "matter.go", "policy.go", "proposal.go", "stages.go"}

// engineTests are the files whose tests hold the engine; they need neither Redis nor the audit log.
var engineTests = []string{"bounds_test.go", "cases_test.go", "edges_test.go", "engine_test.go", "ledger_test.go", "policy_test.go", "property_test.go", "stages_test.go"}

// site is an expression of the engine that can be changed, and into what.
type site struct {
	from, to int // bytes of the file
	typ      string
	others   []string
	id       int // of the first of the others
}

// mutant is one change.
type mutant struct {
	id   int
	name string // the file, the line of source without its indent, and the change
	line int
}

// mutation rewrites the engine so that each of its mutants can be switched on by its id.
type mutation struct {
	t       *testing.T
	set     *token.FileSet
	info    types.Info
	src     []byte
	mutants []mutant
	named   map[string]int // how often a name was given
}

// turned are the operators, and what each is turned into: moved by one at its bound, and inverted.
var turned = map[token.Token][]token.Token{
	token.LSS: {token.LEQ, token.GEQ}, token.LEQ: {token.LSS, token.GTR}, token.GTR: {token.GEQ, token.LEQ}, token.GEQ: {token.GTR, token.LSS},
	token.EQL: {token.NEQ}, token.NEQ: {token.EQL}, token.LAND: {token.LOR}, token.LOR: {token.LAND},
}

func (m *mutation) text(n ast.Node) string {
	return string(m.src[m.set.Position(n.Pos()).Offset:m.set.Position(n.End()).Offset])
}

// others are what an expression is changed into.
func (m *mutation) others(n ast.Node) (others []string) {
	switch n := n.(type) {
	case *ast.BinaryExpr:
		for _, op := range turned[n.Op] {
			others = append(others, m.text(n.X)+" "+op.String()+" "+m.text(n.Y))
		}
	case *ast.UnaryExpr:
		if n.Op == token.NOT {
			others = append(others, m.text(n.X))
		}
	case *ast.BasicLit:
		if v, err := strconv.Atoi(n.Value); err == nil {
			others = append(others, fmt.Sprint(v+1), fmt.Sprint(v-1))
		} else if v, err := strconv.ParseFloat(n.Value, 64); err == nil {
			others = append(others, fmt.Sprint(v+0.01), fmt.Sprint(v-0.01))
		}
	case *ast.CallExpr:
		swap := map[string]string{"min": "max", "max": "min", "Before": "After", "After": "Before"}
		switch f := n.Fun.(type) {
		case *ast.Ident:
			if other := swap[f.Name]; other != "" {
				others = append(others, other+m.text(n)[len(f.Name):])
			}
		case *ast.SelectorExpr:
			if other := swap[f.Sel.Name]; other != "" { // at the bound, and inverted
				others = append(others, fmt.Sprintf("!%s.%s(%s)", m.text(f.X), other, m.text(n.Args[0])), "!"+m.text(n))
			}
		}
	}
	return others
}

// rewrite makes the source of a file in which every mutant can be switched on.
func (m *mutation) rewrite(name string, file *ast.File) []byte {
	var sites []site
	ast.Inspect(file, func(n ast.Node) bool {
		switch d := n.(type) {
		case *ast.GenDecl:
			if d.Tok == token.CONST || d.Tok == token.IMPORT { // constants must stay such
				return false
			}
		case *ast.ArrayType, *ast.StructType:
			return false
		}
		expr, ok := n.(ast.Expr)
		if !ok {
			return true
		}
		if others := m.others(n); len(others) > 0 {
			typ := types.Default(m.info.TypeOf(expr))
			s := site{m.set.Position(n.Pos()).Offset, m.set.Position(n.End()).Offset, types.TypeString(typ, qualified), others, len(m.mutants) + 1}
			begin := bytes.LastIndexByte(m.src[:s.from], '\n') + 1
			end := s.from + bytes.IndexByte(m.src[s.from:], '\n')
			for _, o := range others {
				what := strings.Join(strings.Fields(fmt.Sprintf("%s: %s: %s => %s", name, m.src[begin:end], m.text(n), o)), " ")
				if m.named[what]++; m.named[what] > 1 {
					what += fmt.Sprintf(" #%d", m.named[what])
				}
				m.mutants = append(m.mutants, mutant{len(m.mutants) + 1, what, m.set.Position(n.Pos()).Line})
			}
			sites = append(sites, s)
		}
		return true
	})
	slices.SortStableFunc(sites, func(a, b site) int { return a.from - b.from }) // an outer one before those within
	return m.emit(0, len(m.src), sites)
}

// qualified writes a type as a file of the package does.
func qualified(p *types.Package) string {
	if p.Name() == "abuse" {
		return ""
	}
	return p.Name()
}

// emit writes a stretch of the source with its sites.
func (m *mutation) emit(from, to int, sites []site) (out []byte) {
	for len(sites) > 0 {
		s := sites[0]
		inner := 1
		for inner < len(sites) && sites[inner].from < s.to {
			inner++
		}
		out = append(out, m.src[from:s.from]...)
		out = fmt.Appendf(out, "mutate(%d, func() %s { return %s }", s.id, s.typ, m.emit(s.from, s.to, sites[1:inner]))
		for _, o := range s.others {
			out = fmt.Appendf(out, ", func() %s { return %s }", s.typ, o)
		}
		out = append(out, ')')
		from, sites = s.to, sites[inner:]
	}
	return append(out, m.src[from:to]...)
}

// switches is the file that goes with the rewritten ones.
const switches = `package abuse

import (
	"os"
	"strconv"
)

var activeMutant, _ = strconv.Atoi(os.Getenv("HOTLINE_MUTANT"))

func mutate[T any](id int, original func() T, others ...func() T) T {
	if i := activeMutant - id; i >= 0 && i < len(others) {
		return others[i]()
	}
	return original()
}
`

// goTool runs the go command in the package's directory.
func goTool(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", args...).Output()
	if err != nil {
		var says []byte
		if exit, ok := err.(*exec.ExitError); ok {
			says = exit.Stderr
		}
		t.Fatalf("go %s: %v\n%s%s", args[0], err, out, says)
	}
	return string(out)
}

// check gives the engine its types, from what the go command has compiled of its imports.
func (m *mutation) check() map[string]*ast.File {
	exports := map[string]string{}
	for line := range strings.Lines(goTool(m.t, "list", "-export", "-deps", "-f", "{{if .Export}}{{.ImportPath}} {{.Export}}{{end}}", ".")) {
		if path, file, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			exports[path] = file
		}
	}
	names := strings.Fields(goTool(m.t, "list", "-f", "{{join .GoFiles \" \"}}", "."))
	byName, all := map[string]*ast.File{}, []*ast.File(nil)
	for _, name := range names {
		f, err := parser.ParseFile(m.set, name, nil, 0)
		if err != nil {
			m.t.Fatal(err)
		}
		byName[name], all = f, append(all, f)
	}
	cfg := types.Config{Importer: importer.ForCompiler(m.set, "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })}
	if _, err := cfg.Check("abuse", m.set, all, &m.info); err != nil {
		m.t.Fatal(err)
	}
	return byName
}

// build makes a test program with every mutant in it.
func (m *mutation) build() (program string) {
	dir, files := m.t.TempDir(), m.check()
	replaced := map[string]string{}
	put := func(name string, text []byte) {
		path, _ := filepath.Abs(name) // fails only without a working directory
		replaced[path] = filepath.Join(dir, name)
		if err := os.WriteFile(replaced[path], text, 0o600); err != nil {
			m.t.Fatal(err)
		}
	}
	for _, name := range engineFiles {
		var err error
		if m.src, err = os.ReadFile(name); err != nil {
			m.t.Fatal(err)
		}
		put(name, m.rewrite(name, files[name]))
	}
	put("mutant_switches.go", []byte(switches))
	list, _ := json.Marshal(map[string]any{"Replace": replaced}) // strings always marshal
	overlay := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(overlay, list, 0o600); err != nil {
		m.t.Fatal(err)
	}
	program = filepath.Join(dir, "mutants.test")
	goTool(m.t, "test", "-c", "-vet=off", "-overlay", overlay, "-o", program, ".")
	return program
}

// testsOf is a pattern of the tests in the files.
func testsOf(t *testing.T, files ...string) string {
	t.Helper()
	var names []string
	for _, name := range files {
		src, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range regexp.MustCompile(`(?m)^func (Test\w+)\(t `).FindAllSubmatch(src, -1) {
			names = append(names, string(f[1]))
		}
	}
	return "^(" + strings.Join(names, "|") + ")$"
}

// TestMutation changes each number and each comparison of the engine in turn, and runs the engine's tests: one
// must fail, or the change must be explained in equivalent. It builds the package anew and runs its tests some five
// hundred times, so that it belongs to the soak; HOTLINE_MUTANTS is a pattern of the names of those to try.
func TestMutation(t *testing.T) {
	if os.Getenv("HOTLINE_SOAK") == "" {
		t.Skip("changes the engine some five hundred times; HOTLINE_SOAK=1 does")
	}
	m := &mutation{t: t, set: token.NewFileSet(), named: map[string]int{}, info: types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}, Defs: map[*ast.Ident]types.Object{}}}
	program := m.build()
	known := map[string]bool{}
	for _, x := range m.mutants {
		known[x.name] = true
	}
	for name := range equivalent {
		if !known[name] {
			t.Errorf("there is no mutant %q any more; take its explanation out", name)
		}
	}
	only, run := regexp.MustCompile(os.Getenv("HOTLINE_MUTANTS")), testsOf(t, engineTests...)
	var killed, explained int
	for _, x := range append([]mutant{{0, "unchanged", 0}}, m.mutants...) {
		if x.id > 0 && !only.MatchString(x.name) {
			continue
		}
		cmd := exec.CommandContext(t.Context(), program, "-test.run", run, "-test.failfast", "-test.timeout", "2m")
		cmd.Env = append(os.Environ(), fmt.Sprintf("HOTLINE_MUTANT=%d", x.id))
		out, err := cmd.CombinedOutput()
		switch why := equivalent[x.name]; {
		case x.id == 0 && err != nil:
			t.Fatalf("the tests fail without any change: %v\n%s", err, out)
		case x.id == 0:
		case err == nil && why == "":
			t.Errorf("%d survives, line %d: %s", x.id, x.line, x.name)
		case err == nil:
			explained++
		case why != "":
			t.Errorf("killed, and yet explained: %s", x.name)
		default:
			killed++
		}
	}
	t.Logf("%d mutants in all; tried: %d killed, %d equivalent", len(m.mutants), killed, explained)
}

// equivalent are the mutants that change nothing that can be seen, each with why.
var equivalent = map[string]string{
	"engine.go: switch banner := Watch(p, f.At, f.Counted, 0, 0); banner {: 0 => 1":                shortTalk,
	"engine.go: switch banner := Watch(p, f.At, f.Counted, 0, 0); banner {: 0 => -1":               shortTalk,
	"fold.go: watched := Watch(l.policy, at, l.counted(f, at), 0, 0) != session.NoBanner: 0 => 1":  shortTalk,
	"fold.go: watched := Watch(l.policy, at, l.counted(f, at), 0, 0) != session.NoBanner: 0 => -1": shortTalk,
	"engine.go: if a.IsZero() || b.Before(a) {: b.Before(a) => !b.After(a)":                        "of two equal times either is the earlier one",
}

const shortTalk = "a talk is compared with long.call, which the policy's bounds keep at five minutes or more"
