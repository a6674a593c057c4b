package main

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"
)

func TestEveryProtocolSaysWhoAnswered(t *testing.T) {
	const free = "127.0.0.1:0"
	p, err := listen(free, free, free)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- serve(ctx, p, func(name string) string { return map[string]string{"HOSTNAME": "pod-1", "VERSION": "v1"}[name] })
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("serving: %v", err)
		}
	})
	for _, target := range []string{"http://" + p.http.Addr().String() + "/x", "grpc://" + p.grpc.Addr().String(), "tcp://" + p.tcp.Addr().String()} {
		var out bytes.Buffer
		if err := call(t.Context(), []string{"-n", "20", "-c", "4", target}, strings.NewReader(""), &out); err != nil {
			t.Fatalf("%s: %v", target, err)
		}
		var sum tally
		if err := json.Unmarshal(out.Bytes(), &sum); err != nil {
			t.Fatal(err)
		}
		if sum.Calls != 20 || sum.Pods["pod-1"] != 20 || sum.Versions["v1"] != 20 || len(sum.Failures) > 0 {
			t.Errorf("%s: %s", target, out.String())
		}
	}
}
