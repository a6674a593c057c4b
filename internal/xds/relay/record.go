package relay

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"
)

// maxRecord bounds the file, which lies in the pod's memory.
const maxRecord = 32 << 20

// fileMagic begins the file; another format gets another.
const fileMagic = "meshagent xds record 1\n"

// quiet is how long the record must not have changed before it is written.
const quiet = 200 * time.Millisecond

// record is the last configuration Envoy accepted, in memory and in a file.
type record struct {
	file string
	log  *slog.Logger

	mu    sync.Mutex
	types map[string]map[string]*discoveryv3.Resource
	dirty chan struct{}
	// tooLarge is set while the record does not fit the file.
	tooLarge bool
}

func newRecord(file string, log *slog.Logger) *record {
	r := &record{file: file, log: log, types: map[string]map[string]*discoveryv3.Resource{}, dirty: make(chan struct{}, 1)}
	if file == "" {
		return r
	}
	text, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		log.Warn("the recorded configuration cannot be read and is not used", "file", file, "reason", err)
	default:
		if types, err := decode(text); err != nil {
			log.Warn("the recorded configuration is damaged and is not used", "file", file, "reason", err)
		} else {
			r.types = types
		}
	}
	return r
}

func (r *record) empty() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.types) == 0
}

func (r *record) counts() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make(map[string]int, len(r.types))
	for url, m := range r.types {
		out[url] = len(m)
	}
	return out
}

// find returns what is recorded of names, or of the whole type; known says whether the type was ever accepted.
func (r *record) find(url string, all bool, names []string) (out []*discoveryv3.Resource, known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	of, known := r.types[url]
	asked := make(map[string]bool, len(names))
	for _, name := range names {
		asked[name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(of)) {
		if all || asked[name] || asked[tableOf(url, name)] {
			out = append(out, of[name])
		}
	}
	return out, known
}

// drop deletes name, and where it is that of a route configuration all of its virtual hosts.
func drop[V any](url string, from map[string]V, name string) {
	delete(from, name)
	if url == TypeVirtualHost {
		maps.DeleteFunc(from, func(host string, _ V) bool { return tableOf(url, host) == name })
	}
}

// tableOf is the route configuration that a virtual host belongs to, by whose name Envoy asks for it; empty for other types.
func tableOf(url, name string) string {
	if url != TypeVirtualHost {
		return ""
	}
	table, _, _ := strings.Cut(name, "/")
	return table
}

func (r *record) accept(url string, resources []*discoveryv3.Resource, removed []string) {
	r.mu.Lock()
	of := r.types[url]
	if of == nil {
		of = map[string]*discoveryv3.Resource{}
		r.types[url] = of
	}
	for _, res := range resources {
		of[res.GetName()] = res
	}
	for _, name := range removed {
		delete(of, name)
	}
	r.mu.Unlock()
	r.touch()
}

// forget what was recorded under a name that Envoy does not ask for any more.
func (r *record) forget(url, name string) {
	r.mu.Lock()
	n := len(r.types[url])
	drop(url, r.types[url], name)
	changed := n != len(r.types[url])
	r.mu.Unlock()
	if changed {
		r.touch()
	}
}

func (r *record) touch() {
	select {
	case r.dirty <- struct{}{}:
	default:
	}
}

// keep writes the record when it has changed, and once more at the end.
func (r *record) keep(ctx context.Context) {
	if r.file == "" {
		return
	}
	timer := time.NewTimer(quiet)
	timer.Stop()
	for {
		select {
		case <-r.dirty:
			timer.Reset(quiet)
		case <-timer.C:
			r.write()
		case <-ctx.Done():
			r.write()
			return
		}
	}
}

func (r *record) write() {
	r.mu.Lock()
	text, err := encode(r.types)
	r.mu.Unlock()
	if err == nil && len(text) > maxRecord {
		err = fmt.Errorf("%d bytes are more than the %d it may have", len(text), maxRecord)
	}
	if err != nil {
		if !r.tooLarge {
			r.log.Warn("the configuration is not recorded: a restart while Pilot is away would find none", "reason", err)
		}
		r.tooLarge = true
		_ = os.Remove(r.file) // an old one would be worse than none
		return
	}
	r.tooLarge = false
	if err := replace(r.file, text); err != nil {
		r.log.Warn("recording the configuration", "file", r.file, "reason", err)
	}
}

// replace writes the file in one step.
func replace(file string, text []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(file), ".xds-*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(text)
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), file)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return nil
}

// encode writes each type as a response: length, then bytes.
func encode(types map[string]map[string]*discoveryv3.Resource) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString(fileMagic)
	for _, url := range slices.Sorted(maps.Keys(types)) {
		m := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: url}
		for _, name := range slices.Sorted(maps.Keys(types[url])) {
			m.Resources = append(m.Resources, types[url][name])
		}
		text, err := proto.Marshal(m)
		if err != nil {
			return nil, err
		}
		b.Write(binary.AppendUvarint(nil, uint64(len(text))))
		b.Write(text)
	}
	return b.Bytes(), nil
}

func decode(text []byte) (map[string]map[string]*discoveryv3.Resource, error) {
	rest, ok := bytes.CutPrefix(text, []byte(fileMagic))
	if !ok {
		return nil, errors.New("it does not begin as a record does")
	}
	types := map[string]map[string]*discoveryv3.Resource{}
	in := bufio.NewReader(bytes.NewReader(rest))
	for {
		n, err := binary.ReadUvarint(in)
		if errors.Is(err, io.EOF) {
			return types, nil
		}
		if err != nil || n > maxRecord {
			return nil, errors.New("it ends in the middle")
		}
		one := make([]byte, n)
		if _, err := io.ReadFull(in, one); err != nil {
			return nil, errors.New("it ends in the middle")
		}
		var m discoveryv3.DeltaDiscoveryResponse
		if err := proto.Unmarshal(one, &m); err != nil {
			return nil, err
		}
		of := make(map[string]*discoveryv3.Resource, len(m.GetResources()))
		for _, res := range m.GetResources() {
			of[res.GetName()] = res
		}
		types[m.GetTypeUrl()] = of
	}
}
