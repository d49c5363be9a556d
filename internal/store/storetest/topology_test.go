package storetest_test

import (
	"testing"
	"time"

	"github.com/hotline12345/gateway/internal/store/storetest"
)

func TestSentinelsPromoteAReplica(t *testing.T) {
	t.Parallel()
	start := time.Now()
	s := storetest.StartSentinels(t, 1)
	t.Logf("started in %v", time.Since(start))
	old := s.Primary(t)
	if old != s.Servers[0] {
		t.Fatal("the first server is not the primary")
	}
	start = time.Now()
	old.Kill(t)
	if now := s.Primary(t); now != s.Servers[1] {
		t.Fatal("the replica is not the primary")
	}
	t.Logf("failed over in %v", time.Since(start))
}

func TestAClusterPromotesAReplica(t *testing.T) {
	t.Parallel()
	start := time.Now()
	c := storetest.StartCluster(t)
	t.Logf("started in %v", time.Since(start))
	old := c.PrimaryOf(t, "{h}")
	start = time.Now()
	old.Kill(t)
	if now := c.PrimaryOf(t, "{h}"); now == old {
		t.Fatal("a dead server serves")
	}
	c.Await(t)
	t.Logf("failed over in %v", time.Since(start))
}
