package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Config is the section `audit` of the configuration.
type Config struct {
	// MaxBytes is the size at which a file is closed and the next begun, 1 MiB to 1 GiB.
	MaxBytes int64 `yaml:"max_bytes"`
	// CopyDir is a second directory for the chain, best on another machine and in other hands: a chain alone
	// does not show that its end was cut off. Empty keeps no copy.
	CopyDir string `yaml:"copy_dir"`
	// CopyEvery is how often the copy is brought up to date, 1m to 168h.
	CopyEvery time.Duration `yaml:"copy_every"`
}

// Defaults are the values of a configuration that says nothing.
func Defaults() Config { return Config{MaxBytes: 64 << 20, CopyEvery: 24 * time.Hour} }

// Validate names each setting that is out of bounds.
func (c Config) Validate() error {
	var errs []error
	if c.MaxBytes < 1<<20 || c.MaxBytes > 1<<30 {
		errs = append(errs, fmt.Errorf("max_bytes: %d is out of bounds; write a number from 1048576 (1 MiB) to 1073741824 (1 GiB)", c.MaxBytes))
	}
	if c.CopyEvery < time.Minute || c.CopyEvery > 168*time.Hour {
		errs = append(errs, fmt.Errorf("copy_every: %v is out of bounds; write 1m to 168h", c.CopyEvery))
	}
	return errors.Join(errs...)
}

// ErrBroken answers every append after an fsync failed: what is on the disk is unknown until the log is
// opened again.
var ErrBroken = errors.New("audit: an fsync failed; the log must be opened again")

// ErrInUse refuses to open a chain that another process writes.
var ErrInUse = errors.New("audit: another process writes this chain")

// Log is a node's chain, open for writing. Its methods may be called from any goroutine.
type Log struct {
	cfg     Config
	dir     string
	node    string
	now     func() time.Time
	metrics *metrics
	lock    *os.File

	mu    sync.Mutex // the chain in memory
	head  Receipt    // the newest entry, durable or on its way
	batch *batch     // collects entries while the one before is being written

	io      sync.Mutex // the file; taken before mu
	file    *os.File
	size    int64
	day     string
	durable Receipt
	broken  error
}

// batch is a run of entries that share one write and one fsync.
type batch struct {
	lines []byte
	head  Receipt
	day   string
	done  bool
	err   error
}

// Open opens or begins the chain of a node in dir. A last line that a crash cut off is removed and the
// repair noted as an entry; any other damage is an error ([*Broken]): then a person must look. now is
// the clock of the entries; reg may be nil.
func Open(cfg Config, dir, node string, now func() time.Time, log *slog.Logger, reg prometheus.Registerer) (*Log, error) {
	if !validNode(node) {
		return nil, fmt.Errorf("audit: %q cannot name a chain", node)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	l := &Log{cfg: cfg, dir: dir, node: node, now: now, metrics: newMetrics(reg), batch: &batch{}}
	if err := l.takeLock(); err != nil {
		return nil, err
	}
	torn, err := l.openLast()
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	if torn == nil {
		return l, nil
	}
	log.Warn("audit log repaired: a crash had cut off its last line", "bytes", len(torn))
	_, err = l.Append(context.Background(), Entry{Actor: "node", Act: "audit.repaired", Detail: map[string]string{
		"bytes": strconv.Itoa(len(torn)), "sha256": digest(torn),
	}})
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// takeLock keeps a second process out; the lock ends with the process.
func (l *Log) takeLock() error {
	f, err := os.OpenFile(filepath.Join(l.dir, l.node+".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return errors.Join(ErrInUse, f.Close())
	}
	l.lock = f
	return nil
}

// openLast checks the newest file, cuts a torn line off, and opens the file for appending. It returns
// the torn bytes.
func (l *Log) openLast() (torn []byte, err error) {
	files, err := chainFiles(l.dir, l.node)
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		l.head = Receipt{Node: l.node, Hash: genesis}
		l.durable = l.head
		return nil, nil
	}
	prev, err := l.headBefore(files)
	if err != nil {
		return nil, err
	}
	last := files[len(files)-1]
	head, end, day := prev, int64(-1), ""
	for rec, err := range scanFile(last, prev) {
		if broken, ok := errors.AsType[*Broken](err); ok && broken.Torn {
			end = broken.Offset
			break
		}
		if err != nil {
			return nil, err
		}
		head, day = rec.receipt(), dayOf(rec.At)
	}
	if head.Seq == 0 {
		head = Receipt{Node: l.node, Hash: genesis}
	}
	l.head, l.durable, l.day = head, head, day
	if l.file, err = os.OpenFile(last, os.O_RDWR|os.O_APPEND, 0o600); err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	return l.cutTorn(end)
}

// headBefore is the receipt of the last entry before the newest file.
func (l *Log) headBefore(files []string) (Receipt, error) {
	var prev Receipt
	for i := len(files) - 2; i >= 0 && prev.Seq == 0; i-- {
		line, err := lastLine(files[i])
		if err != nil {
			return prev, err
		}
		if len(line) == 0 {
			continue // a crash came between a file's birth and its first line
		}
		rec, err := parse(line)
		if err != nil {
			return prev, fmt.Errorf("audit: %s: its last line: %w", files[i], err)
		}
		prev = rec.receipt()
	}
	return prev, nil
}

// cutTorn truncates the open file to end (unless it is -1) and learns its size.
func (l *Log) cutTorn(end int64) (torn []byte, err error) {
	info, err := l.file.Stat()
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	l.size = info.Size()
	if end < 0 {
		return nil, nil
	}
	torn = make([]byte, l.size-end)
	if _, err := l.file.ReadAt(torn, end); err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	if err := errors.Join(l.file.Truncate(end), l.file.Sync()); err != nil {
		return nil, fmt.Errorf("audit: repair: %w", err)
	}
	l.size = end
	return torn, nil
}

// lastLine is a file's last line, without its newline.
func lastLine(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	n := min(info.Size(), MaxLine+1) // the newline before the last line, and that line
	b := make([]byte, n)
	if _, err := f.ReadAt(b, info.Size()-n); err != nil && n > 0 {
		return nil, fmt.Errorf("audit: %w", err)
	}
	return cutLast(b), nil
}

func cutLast(b []byte) []byte {
	if len(b) > 0 && b[len(b)-1] == '\n' {
		b = b[:len(b)-1]
	}
	return b[bytes.LastIndexByte(b, '\n')+1:]
}

// Append adds an entry; it is on disk when Append returns. A ctx that has ended is refused; once begun,
// the write is not given up. Errors: [ErrTooLarge], [ErrClearNumber], [ErrBroken], or the disk's; after
// any error the entry is not in the log, save with ErrBroken, when it may be.
func (l *Log) Append(ctx context.Context, e Entry) (Receipt, error) {
	if err := errors.Join(ctx.Err(), e.check()); err != nil {
		l.metrics.refused.Inc()
		return Receipt{}, err
	}
	l.mu.Lock()
	rec := Record{Seq: l.head.Seq + 1, At: l.now().UTC(), Node: l.node, Prev: l.head.Hash, Entry: e}
	line, err := rec.seal()
	if err != nil {
		l.mu.Unlock()
		l.metrics.refused.Inc()
		return Receipt{}, err
	}
	l.head = rec.receipt()
	b := l.batch
	b.lines, b.head, b.day = append(b.lines, line...), l.head, dayOf(rec.At)
	l.mu.Unlock()

	if err := l.commit(b); err != nil {
		l.metrics.failed.Inc()
		return Receipt{}, err
	}
	l.metrics.entries.Inc()
	return rec.receipt(), nil
}

// Record is Append for callers that need no receipt.
func (l *Log) Record(ctx context.Context, actor, act, subject string, detail map[string]string) error {
	_, err := l.Append(ctx, Entry{Actor: actor, Act: act, Subject: subject, Detail: detail})
	return err
}

// commit makes a batch durable. The first of its appenders that gets the file writes for all.
func (l *Log) commit(b *batch) error {
	l.io.Lock()
	defer l.io.Unlock()
	if b.done {
		return b.err
	}
	l.mu.Lock()
	l.batch = &batch{}
	l.mu.Unlock()

	b.done, b.err = true, l.write(b)
	if b.err == nil {
		l.durable = b.head
		return nil
	}
	// What was chained meanwhile follows lines that are not there: it fails too, and the chain goes
	// back to its durable head.
	l.mu.Lock()
	l.batch.done, l.batch.err = true, b.err
	l.batch, l.head = &batch{}, l.durable
	l.mu.Unlock()
	return b.err
}

// write puts a batch into the file, rotating first when it is time.
func (l *Log) write(b *batch) error {
	if l.broken != nil {
		return l.broken
	}
	if l.file == nil || b.day != l.day || l.size+int64(len(b.lines)) > l.cfg.MaxBytes {
		if err := l.rotate(b.day); err != nil {
			return err
		}
	}
	start := time.Now()
	if _, err := l.file.Write(b.lines); err != nil {
		// A full disk is no reason to give up the log: take the half-written lines out again.
		if cut := errors.Join(l.file.Truncate(l.size), l.file.Sync()); cut != nil {
			l.broken = errors.Join(ErrBroken, cut)
		}
		return fmt.Errorf("audit: %w", err)
	}
	if err := l.file.Sync(); err != nil {
		l.broken = errors.Join(ErrBroken, err)
		return l.broken
	}
	l.metrics.sync.Observe(time.Since(start).Seconds())
	l.size += int64(len(b.lines))
	return nil
}

// rotate begins the next file. An empty one that a failed first write left is used again.
func (l *Log) rotate(day string) error {
	f, err := os.OpenFile(chainFile(l.dir, l.node, l.durable.Seq+1), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	if err := syncDir(l.dir); err != nil {
		return errors.Join(fmt.Errorf("audit: %w", err), f.Close())
	}
	if l.file != nil {
		if err := l.file.Close(); err != nil {
			return errors.Join(fmt.Errorf("audit: %w", err), f.Close())
		}
	}
	l.file, l.size, l.day = f, 0, day
	return nil
}

// Head is the newest entry that is on disk; its Seq is 0 when there is none.
func (l *Log) Head() Receipt {
	l.io.Lock()
	defer l.io.Unlock()
	return l.durable
}

// Dir is where the chain lies, for [Records] and [Verify].
func (l *Log) Dir() string { return l.dir }

// Node is the chain's node.
func (l *Log) Node() string { return l.node }

// Close closes the chain; later appends fail.
func (l *Log) Close() error {
	l.io.Lock()
	defer l.io.Unlock()
	l.broken = errors.Join(ErrBroken, os.ErrClosed)
	var err error
	if l.file != nil {
		err = l.file.Close()
		l.file = nil
	}
	if l.lock != nil {
		err = errors.Join(err, l.lock.Close())
		l.lock = nil
	}
	return err
}

func dayOf(t time.Time) string { return t.UTC().Format(time.DateOnly) }

// syncDir makes a new name in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
