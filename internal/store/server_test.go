package store_test

import (
	"testing"

	"github.com/hotline12345/gateway/internal/store/storetest"
)

func TestServerTellsOfItself(t *testing.T) {
	r := storetest.Start(t, "--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru")
	got, err := storetest.Open(t, r.Addr).Server(t.Context())
	if err != nil || got.Policy != "allkeys-lru" || got.MaxMemory != 64<<20 || !got.AOF || got.Role != "master" || got.Version == "" {
		t.Errorf("it says %+v, %v", got, err)
	}
}
