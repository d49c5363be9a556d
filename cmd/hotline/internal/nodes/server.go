package nodes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	"golang.org/x/net/netutil"

	"log/slog"
)

// The bounds of a request and its answer, in bytes before they are sealed, and of the server.
const (
	maxAsked      = 1 << 20
	maxAnswered   = 32 << 20
	maxConns      = 512
	serveHeaders  = 5 * time.Second
	serveBody     = 10 * time.Second
	serveAnswer   = holdFor + 10*time.Second
	idleConn      = 2 * time.Minute
	statusHeader  = "Hotline-Status" // of the sealed answer, so that a status on the way is told from ours
	shutdownLimit = time.Second
)

type fromKey struct{}

// From is the gateway that made a request, "" for one of this process.
func From(ctx context.Context) string {
	from, _ := ctx.Value(fromKey{}).(string)
	return from
}

// server answers the other gateways.
type server struct {
	prover  *prover
	handler http.Handler
	log     *slog.Logger
	metrics *metrics
	now     func() time.Time
}

// serve answers on a listener until ctx ends.
func (s *server) serve(ctx context.Context, ln net.Listener) error {
	srv := &http.Server{Handler: s, ReadHeaderTimeout: serveHeaders, ReadTimeout: serveBody, WriteTimeout: serveAnswer,
		IdleTimeout: idleConn, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return ctx }}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(netutil.LimitListener(ln, maxConns)) }()
	select {
	case err := <-done:
		return fmt.Errorf("nodes: serve: %w", err)
	case <-ctx.Done():
	}
	wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownLimit)
	defer cancel()
	if err := srv.Shutdown(wait); err != nil {
		_ = srv.Close() // what is still open has had its time
	}
	<-done //nolint:errcheck // that the server was closed
	return nil
}

// ServeHTTP lets a request of a gateway through, opened, and seals its answer.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	result := "failed"
	defer func() {
		if v := recover(); v != nil {
			s.log.Error("a panic ended a request of another gateway", "panic", v, "stack", string(debug.Stack()))
			result = "panic"
			http.Error(w, "this gateway failed", http.StatusInternalServerError)
		}
		s.metrics.requests.WithLabelValues(result).Inc()
	}()
	refuse := func(err error) {
		result = "refused"
		w.Header().Set("Connection", "close") // a stranger keeps no connection, and no body of theirs is read
		http.Error(w, err.Error(), http.StatusUnauthorized)
	}
	from, proof, sum, err := s.prover.check(r, s.now())
	if err != nil {
		refuse(err)
		return
	}
	sealed, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxAsked+256))
	if err != nil {
		http.Error(w, "the request does not read", http.StatusBadRequest)
		return
	}
	body, err := s.prover.open(sealed, asks, from)
	if err != nil || digest(sealed) != sum {
		refuse(errNoProof)
		return
	}
	r = r.WithContext(context.WithValue(r.Context(), fromKey{}, from))
	r.Body = io.NopCloser(bytes.NewReader(body))
	answer := &kept{header: http.Header{}, status: http.StatusOK}
	s.handler.ServeHTTP(answer, r)
	if answer.over {
		http.Error(w, "the answer is too long", http.StatusInternalServerError)
		return
	}
	result = "ok"
	w.Header().Set(statusHeader, strconv.Itoa(answer.status))
	_, _ = w.Write(s.prover.seal(answer.body.Bytes(), answers, proof+strconv.Itoa(answer.status))) // who asked has gone
}

// kept is an answer in memory, so that it can be sealed whole.
type kept struct {
	header http.Header
	status int
	body   bytes.Buffer
	over   bool
}

func (k *kept) Header() http.Header    { return k.header }
func (k *kept) WriteHeader(status int) { k.status = status }

func (k *kept) Write(b []byte) (int, error) {
	if k.over = k.over || k.body.Len()+len(b) > maxAnswered; k.over {
		return 0, errors.New("nodes: the answer is too long")
	}
	return k.body.Write(b)
}
