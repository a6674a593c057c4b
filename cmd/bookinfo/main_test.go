package main

import (
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain puts this very program on the PATH as "bookinfo", so that tests run it as the process it is.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"bookinfo": main})
}

func TestCommandLine(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/script", Deadline: time.Now().Add(time.Minute)})
}
