package relay_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/meshctl/meshctl/internal/testkit/pilot"
	"github.com/meshctl/meshctl/internal/xds/relay"
)

// box is one pod's relay and its files.
type box struct {
	*relay.Relay
	t      testing.TB
	dir    string
	cfg    relay.Config
	cancel context.CancelFunc
	over   chan error
}

func newBox(t testing.TB, p *pilot.Pilot) *box {
	t.Helper()
	dir, err := os.MkdirTemp("", "relay") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	b := &box{t: t, dir: dir, cfg: relay.Config{
		Socket: filepath.Join(dir, "xds.sock"), Address: p.Addr, ServerName: pilot.ServerName, RootFile: filepath.Join(dir, "root.pem"),
		TokenFile: filepath.Join(dir, "token"), CacheFile: filepath.Join(dir, "xds-cache"), FirstRetry: 20 * time.Millisecond, LastRetry: 200 * time.Millisecond,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}}
	b.write("root.pem", p.CA.PEM)
	b.write("token", []byte("token-1\n"))
	b.start()
	t.Cleanup(b.stop)
	return b
}

func (b *box) write(name string, text []byte) {
	b.t.Helper()
	if err := os.WriteFile(filepath.Join(b.dir, name), text, 0o600); err != nil {
		b.t.Fatal(err)
	}
}

func (b *box) start() {
	b.t.Helper()
	b.Relay = relay.New(b.cfg)
	ctx, cancel := context.WithCancel(context.Background())
	b.cancel, b.over = cancel, make(chan error, 1)
	ready := make(chan struct{})
	go func() { b.over <- b.Run(ctx, func() { close(ready) }) }()
	select {
	case <-ready:
	case err := <-b.over:
		b.t.Fatal(err)
	}
}

func (b *box) stop() {
	if b.cancel == nil {
		return
	}
	b.cancel()
	if err := <-b.over; err != nil {
		b.t.Error(err)
	}
	b.cancel = nil
}

// await waits until the status is as wanted.
func (b *box) await(what string, ok func(relay.Status) bool) relay.Status {
	b.t.Helper()
	deadline := time.After(pilot.Patience)
	for {
		s, changed := b.Status()
		if ok(s) {
			return s
		}
		select {
		case <-changed:
		case <-deadline:
			b.t.Fatalf("%s: not in %v; the status is %+v", what, pilot.Patience, s)
		}
	}
}
