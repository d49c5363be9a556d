package console

import (
	"context"
	"log/slog"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hotline12345/gateway/cmd/hotline/internal/ops"
	"github.com/hotline12345/gateway/internal/audit"
	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/journal"
	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/internal/staff"
)

// The parts of the program are what the console asks for.
var (
	_ Calls   = (*session.Manager)(nil)
	_ Desk    = (*session.Manager)(nil)
	_ Staff   = (*staff.Directory)(nil)
	_ Journal = (*journal.Journal)(nil)
	_ Audit   = (*audit.Log)(nil)
	_ Health  = (*ops.Health)(nil)
)

// realParts are a directory with the supervisor "lead", a journal that runs, and a log.
func realParts(t *testing.T) (*staff.Directory, *journal.Journal, *audit.Log) {
	t.Helper()
	dir := t.TempDir()
	log, err := audit.Open(audit.Defaults(), dir, "n1", time.Now, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	people, err := staff.Open(t.Context(), staff.Defaults(), dir, log, time.Now, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { people.Close() })
	who := staff.Person{ID: "lead", Name: "陈静", Roles: []staff.Role{staff.Supervisor}, Language: "en"}
	if err := people.Add(t.Context(), who, "node"); err != nil {
		t.Fatal(err)
	}
	if err := people.SetPassword(t.Context(), "lead", "correct horse battery", "node"); err != nil {
		t.Fatal(err)
	}
	cfg := journal.Defaults()
	cfg.Path = filepath.Join(dir, "journal.db")
	book, err := journal.New(cfg, journal.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- book.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		book.Close()
	})
	return people, book, log
}

// A real person logs in, sees a call of a real journal, and acts into a real log.
func TestRealParts(t *testing.T) {
	b := newBench(t, noon)
	people, book, log := realParts(t)
	b.c.deps.Staff, b.c.deps.Journal, b.c.deps.Audit = people, book, log
	book.Append(journal.Entry{CallID: "J1", At: time.Now(), Kind: "stage", Text: "talk"})
	record := journal.CDR{CallID: "J1", Started: time.Now(), Caller: call.Number{E164: "+8613812345678"}, Outcome: "silent"}
	if err := book.SaveCDR(t.Context(), record); err != nil {
		t.Fatal(err)
	}

	resp, _ := b.request("POST", "/login", url.Values{"id": {"lead"}, "password": {"correct horse battery"}})
	if resp.StatusCode != 303 || len(resp.Cookies()) != 2 {
		t.Fatalf("log-in: %d, %v", resp.StatusCode, resp.Cookies())
	}
	var cookies []string
	for _, k := range resp.Cookies() {
		cookies = append(cookies, k.Name+"="+k.Value)
	}
	jar := strings.Join(cookies, "; ")
	if _, page := b.request("GET", "/calls/J1", nil, "Cookie", jar); !strings.Contains(page, "138****5678") ||
		!strings.Contains(page, "Timeline") || strings.Contains(page, "13812345678") {
		t.Error("the call is not shown, not in the person's language, or in clear")
	}
	before := log.Head().Seq
	if resp, _ := b.request("POST", "/calls/C2/hangup", url.Values{"reason": {"stuck"}}, "Cookie", jar); resp.StatusCode != 303 {
		t.Errorf("hang-up: %d", resp.StatusCode)
	}
	if after := log.Head().Seq; after != before+1 {
		t.Errorf("the log went from %d to %d", before, after)
	}
	token, err := people.IssueToken(t.Context(), "lead", "wallboard", time.Hour, "lead")
	if err != nil {
		t.Fatal(err)
	}
	if resp, _ := b.request("GET", "/api/v1/calls/J1", nil, "Authorization", "Bearer "+token); resp.StatusCode != 200 {
		t.Errorf("by token: %d", resp.StatusCode)
	}
	if resp, _ := b.request("POST", "/login", url.Values{"id": {"lead"}, "password": {"x"}}); resp.StatusCode != 401 {
		t.Errorf("a wrong password: %d", resp.StatusCode)
	}
}
