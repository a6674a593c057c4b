package freeport_test

import (
	"net"
	"strconv"
	"testing"

	"github.com/meshctl/meshctl/internal/testkit/freeport"
)

func TestAPortIsGivenOnceAndCanBeListenedOn(t *testing.T) {
	given := map[int]bool{}
	for range 500 {
		port := freeport.For(t)
		if given[port] {
			t.Fatalf("port %d was given twice", port)
		}
		given[port] = true
		l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err != nil {
			t.Fatal(err)
		}
		_ = l.Close()
	}
}
