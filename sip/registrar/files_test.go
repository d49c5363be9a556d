package registrar

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestFilesOutliveTheProcess(t *testing.T) {
	dir := t.TempDir()
	log := slog.New(slog.DiscardHandler)
	first, err := NewFiles(dir, 10, log)
	if err != nil {
		t.Fatal(err)
	}
	soon := time.Now().Add(time.Hour)
	for _, b := range []Binding{
		{Extension: "1001", Contact: "sip:1001@127.0.0.1:7001", Transport: "udp", Expires: soon},
		{Extension: "1001", Contact: "sip:1001@127.0.0.1:7002", Transport: "udp", Expires: soon},
		{Extension: "1002", Contact: "sip:1002@127.0.0.1:7003", Transport: "tcp", Expires: soon},
		{Extension: "1003", Contact: "sip:1003@127.0.0.1:7004", Transport: "udp", Expires: time.Now().Add(-time.Second)},
	} {
		if err := first.Put(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	gone := Binding{Extension: "1001", Contact: "sip:1001@127.0.0.1:7002"}
	if err := first.Remove(t.Context(), "1001", gone.Key()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "broken.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	second, err := NewFiles(dir, 10, log)
	if err != nil {
		t.Fatal(err)
	}
	all, err := second.List(t.Context())
	if err != nil || len(all) != 1 || all[0].Contact != "sip:1001@127.0.0.1:7001" {
		t.Errorf("taken up %+v, %v", all, err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("%d files are left, want one", len(left))
	}
}
