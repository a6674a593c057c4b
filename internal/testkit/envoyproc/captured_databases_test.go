package envoyproc_test

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/ingest"
	"github.com/meshctl/meshctl/internal/manifest"
	"github.com/meshctl/meshctl/internal/model"
	"github.com/meshctl/meshctl/internal/objects"
)

const databaseMesh = `
apiVersion: v1
kind: Service
metadata: {name: store}
spec:
  clusterIP: 10.96.0.1
  ports: [{name: redis, port: 6379}, {name: mongo, port: 27017}, {name: cache, port: 6380, targetPort: 6379}]
  selector: {app: server}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
status: {podIP: 10.77.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: server, labels: {app: server}}
status: {podIP: 10.77.0.2}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: store, labels: {kubernetes.io/service-name: store}}
addressType: IPv4
ports: [{name: redis, port: 6379}, {name: mongo, port: 27017}, {name: cache, port: 6379}]
endpoints: [{addresses: [10.77.0.2], targetRef: {kind: Pod, name: server}}]
`

func databases(t *testing.T) *model.Mesh {
	t.Helper()
	objs, fs := manifest.Decode("mesh.yaml", []byte(databaseMesh), manifest.Options{DefaultNamespace: "default"})
	mesh, more := ingest.Build(objects.NewSet(objs...), ingest.Config{})
	if fs = append(fs, more...); finding.HasErrors(fs) {
		t.Fatal(fs)
	}
	return mesh
}

// serveRedis runs a Redis server in the pod.
func (p *netPod) serveRedis() {
	p.t.Helper()
	root, err := filepath.Abs("../../../.cache/tools/redis/usr")
	if err != nil {
		p.t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "bin/redis-server")); err != nil {
		if os.Getenv("CI") != "" {
			p.t.Fatal(err)
		}
		p.t.Skipf("SKIPPED, nothing was asked of Redis: %v (.ci/deps redis)", err)
	}
	libraries, err := filepath.Glob(filepath.Join(root, "lib/*-linux-gnu"))
	if err != nil || len(libraries) == 0 {
		p.t.Fatalf("no libraries of Redis in %s: %v", root, err)
	}
	cmd := exec.Command(filepath.Join(root, "bin/redis-server"), "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--dir", p.t.TempDir())
	cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+libraries[0])
	out, err := cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	p.inside(cmd.Start)
	p.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	said := bufio.NewScanner(out)
	for said.Scan() {
		if strings.Contains(said.Text(), "Ready to accept connections") {
			go func() { _, _ = io.Copy(io.Discard, out) }()
			return
		}
	}
	p.t.Fatal("Redis ended before it was ready")
}

func TestCapturedRedis(t *testing.T) {
	client, server := cabled(t)
	mesh := databases(t)
	server.serveRedis()
	client.proxy(mesh, "client")
	server.proxy(mesh, "server")
	for name, address := range map[string]string{"a port that says Redis": "10.96.0.1:6379", "a port that does not say": "10.96.0.1:6380"} {
		t.Run(name, func(t *testing.T) {
			listening, talking := client.redis(t, address), client.redis(t, address)
			for _, c := range []struct {
				on         *redisConn
				say, hears string
			}{
				{talking, "PING", "+PONG"},
				{talking, "SET who mesh", "+OK"},
				{talking, "GET who", "$4 mesh"},
				{talking, "MULTI", "+OK"},
				{talking, "INCR count", "+QUEUED"},
				{talking, "EXEC", "*1 :1"},
				{talking, "DEL count who", ":2"},
				{talking, "SELECT 3", "+OK"},
				// What a proxy that reads commands would not carry.
				{listening, "SUBSCRIBE news", "*3 $9 subscribe $4 news :1"},
				{talking, "PUBLISH news extra", ":1"},
				{listening, "", "*3 $7 message $4 news $5 extra"},
			} {
				if got := c.on.exchange(t, c.say, len(strings.Fields(c.hears))); got != c.hears {
					t.Errorf("%q is answered %q, want %q", c.say, got, c.hears)
				}
			}
		})
	}
}

type redisConn struct {
	net.Conn
	lines *bufio.Reader
}

func (p *netPod) redis(t *testing.T, address string) *redisConn {
	t.Helper()
	conn, err := p.dial(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &redisConn{conn, bufio.NewReader(conn)}
}

// exchange says a command, if there is one, and reads lines.
func (c *redisConn) exchange(t *testing.T, say string, lines int) string {
	t.Helper()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if say != "" {
		if _, err := fmt.Fprintf(c, "%s\r\n", say); err != nil {
			t.Fatal(err)
		}
	}
	var out []string
	for range lines {
		line, err := c.lines.ReadString('\n')
		if err != nil {
			t.Fatalf("%q: %v after %v", say, err, out)
		}
		out = append(out, strings.TrimSpace(line))
	}
	return strings.Join(out, " ")
}

// MongoDB's server cannot be had here; what matters is that its messages, which no proxy needs to understand, pass as they are.
func TestCapturedMongo(t *testing.T) {
	client, server := cabled(t)
	mesh := databases(t)
	l := server.listen(":27017")
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
	client.proxy(mesh, "client")
	server.proxy(mesh, "server")
	conn, err := client.dial(t.Context(), "tcp", "10.96.0.1:27017")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	const opMsg = 2013
	document := "\x13\x00\x00\x00\x10hello\x00\x01\x00\x00\x00\x00\x00\x00"
	message := binary.LittleEndian.AppendUint32(nil, uint32(16+4+1+len(document)))
	for _, word := range []uint32{7, 0, opMsg, 0} {
		message = binary.LittleEndian.AppendUint32(message, word)
	}
	message = append(append(message, 0), document...)
	if _, err := conn.Write(message); err != nil {
		t.Fatal(err)
	}
	back := make([]byte, len(message))
	if _, err := io.ReadFull(conn, back); err != nil || string(back) != string(message) {
		t.Errorf("got %q back, %v", back, err)
	}
}
