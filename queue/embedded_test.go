package queue

import (
	"testing"

	"github.com/hotline12345/gateway/internal/store"
	"github.com/hotline12345/gateway/internal/store/storetest"
)

func embedded(t *testing.T) *store.Store { return storetest.Open(t, "") }
