package audit

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Broken names the first place where a chain does not hold.
type Broken struct {
	File   string // the file's path; "" when a bare reader was read
	Line   int    // from 1 within the file
	Offset int64  // of the line's first byte within the file
	Torn   bool   // the last line has no newline: a write that a crash cut off
	Err    error
}

func (b *Broken) Error() string {
	file := b.File
	if file == "" {
		file = "audit"
	}
	return fmt.Sprintf("%s:%d: %v", file, b.Line, b.Err)
}

func (b *Broken) Unwrap() error { return b.Err }

var errTorn = errors.New("the last line is cut off")

// Scan reads one file of a chain that goes on after prev (the zero Receipt for the first). It ends at the
// first break, which it yields as a [*Broken]. The receipt of the last record is the next file's prev.
func Scan(r io.Reader, prev Receipt) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		if prev.Seq == 0 {
			prev.Hash = genesis
		}
		br := bufio.NewReaderSize(r, MaxLine)
		var offset int64
		for n := 1; ; n++ {
			line, err := br.ReadSlice('\n')
			if errors.Is(err, io.EOF) && len(line) == 0 {
				return
			}
			rec, torn, err := next(line, err, prev)
			if err != nil {
				yield(Record{}, &Broken{Line: n, Offset: offset, Torn: torn, Err: err})
				return
			}
			if !yield(rec, nil) {
				return
			}
			prev = rec.receipt()
			offset += int64(len(line))
		}
	}
}

// next judges one line as ReadSlice gave it.
func next(line []byte, err error, prev Receipt) (rec Record, torn bool, _ error) {
	switch {
	case errors.Is(err, io.EOF):
		return rec, true, errTorn
	case errors.Is(err, bufio.ErrBufferFull):
		return rec, false, ErrTooLarge
	case err != nil:
		return rec, false, err
	}
	if rec, err = parse(line[:len(line)-1]); err != nil {
		return rec, false, err
	}
	return rec, false, rec.follows(prev)
}

// Records reads a node's chain in dir from its first entry to its last, each checked before it is
// yielded. It ends at the first break, yielded as a [*Broken].
func Records(dir, node string) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		files, err := chainFiles(dir, node)
		if err != nil {
			yield(Record{}, err)
			return
		}
		var head Receipt
		for _, file := range files {
			for rec, err := range scanFile(file, head) {
				if !yield(rec, err) || err != nil {
					return
				}
				head = rec.receipt()
			}
		}
	}
}

// scanFile is Scan of a file, with its path in what breaks.
func scanFile(path string, prev Receipt) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		f, err := os.Open(path)
		if err != nil {
			yield(Record{}, fmt.Errorf("audit: %w", err))
			return
		}
		defer f.Close()
		for rec, err := range Scan(f, prev) {
			if broken, ok := errors.AsType[*Broken](err); ok {
				broken.File = path
			}
			if !yield(rec, err) {
				return
			}
		}
	}
}

// Verify checks every chain in dir and returns their heads, by node. The error is a [*Broken] that names
// the first broken line. Of known, receipts that were kept elsewhere, each must stand in its chain: that
// shows a chain whose end was cut off. In a log that is in use, a torn last line ([Broken].Torn) may be a
// write under way: verify once more.
func Verify(dir string, known ...Receipt) ([]Receipt, error) {
	nodes, err := Nodes(dir)
	if err != nil {
		return nil, err
	}
	missing := make(map[Receipt]bool, len(known))
	for _, k := range known {
		missing[k] = true
	}
	heads := make([]Receipt, 0, len(nodes))
	for _, node := range nodes {
		var head Receipt
		for rec, err := range Records(dir, node) {
			if err != nil {
				return heads, err
			}
			head = rec.receipt()
			delete(missing, head)
		}
		if head.Seq > 0 {
			heads = append(heads, head)
		}
	}
	for _, k := range known {
		if missing[k] {
			return heads, fmt.Errorf("audit: the chain of node %q lacks entry %d that was attested: its end was cut off or it was rewritten", k.Node, k.Seq)
		}
	}
	return heads, nil
}

// fileName matches <node>-<first seq>.jsonl.
var fileName = regexp.MustCompile(`^(.+)-([0-9]{12})\.jsonl$`)

// Nodes lists the nodes that have a chain in dir, sorted.
func Nodes(dir string) ([]string, error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	var nodes []string
	for _, f := range files {
		if m := fileName.FindStringSubmatch(f.Name()); m != nil {
			nodes = append(nodes, m[1])
		}
	}
	slices.Sort(nodes)
	return slices.Compact(nodes), nil
}

// chainFiles lists the files of a node's chain, oldest first.
func chainFiles(dir, node string) ([]string, error) {
	all, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	var files []string
	for _, f := range all { // ReadDir sorts, and the numbers have one width
		if m := fileName.FindStringSubmatch(f.Name()); m != nil && m[1] == node {
			files = append(files, filepath.Join(dir, f.Name()))
		}
	}
	return files, nil
}

func chainFile(dir, node string, seq uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%s-%012d.jsonl", node, seq))
}

// validNode says whether a name can be part of a file's.
func validNode(node string) bool {
	return node != "" && !strings.ContainsAny(node, `/\`+"\x00") && node != "." && node != ".."
}
