package store

import (
	"context"
	"fmt"
	"net"
	"os"
	"syscall"

	"github.com/alicebob/miniredis/v2"
)

// embedded is a Redis in this process. It listens nowhere.
type embedded struct{ server *miniredis.Miniredis }

func newEmbedded() (*embedded, error) {
	e := &embedded{server: miniredis.NewMiniRedis()}
	e.server.ClockTTL(true) // its keys expire by the clock, as a server's do
	first, err := e.server.Dial()
	if err != nil { // Dial starts it
		return nil, fmt.Errorf("start the embedded redis: %w", err)
	}
	return e, first.Close()
}

// dial connects by a pair of sockets rather than by miniredis' own Dial: that is a net.Pipe, which holds
// nothing, so that a pipeline's writer and the server's would wait for one another for ever.
func (e *embedded) dial(context.Context, string, string) (net.Conn, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("connect to the embedded redis: %w", err)
	}
	var ends [2]net.Conn
	for i, fd := range fds {
		file := os.NewFile(uintptr(fd), "embedded redis")
		ends[i], err = net.FileConn(file)
		_ = file.Close() // FileConn has its own copy
		if err != nil {
			return nil, fmt.Errorf("connect to the embedded redis: %w", err)
		}
	}
	e.server.Server().ServeConn(ends[1])
	return ends[0], nil
}

func (e *embedded) close() { e.server.Close() }
