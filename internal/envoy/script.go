package envoy

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/meshctl/meshctl/internal/model"
)

// What a request may ask for itself at most, where a rule lets it. From outside of the mesh it gets no more than the rule's own.
const (
	maxSaidDuration = time.Hour
	maxSaidAttempts = 10
)

// Headers in which Envoy's router is told a request's own timeout and number of attempts. It takes them off.
const (
	timeoutHeader  = "x-envoy-upstream-rq-timeout-ms"
	attemptsHeader = "x-envoy-max-retries"
)

// script is a program for requests in the making, in the language of Envoy's filter for scripts. Nothing else of Envoy's holds a number to its
// bounds, or draws one from a distribution.
type script struct {
	// gateway says that requests come from outside of the mesh.
	gateway bool
	lines   []string
	draws   bool
}

func (s *script) add(format string, args ...any) {
	s.lines = append(s.lines, fmt.Sprintf(format, args...))
}

// atMost is the longest of durations, in milliseconds, that a request may ask for.
func (s *script) atMost(own time.Duration) int64 {
	if s.gateway {
		return own.Milliseconds()
	}
	return max(own, maxSaidDuration).Milliseconds()
}

func (s *script) timeout(rule *model.Rule) {
	s.add(`local timeout = said(headers, %s, 1)`, quoted(rule.TimeoutHeader))
	s.add(`if timeout then headers:replace(%s, string.format("%%d", math.min(timeout, %d))) end`, quoted(timeoutHeader), s.atMost(rule.Timeout))
}

func (s *script) attempts(r *model.Retry) {
	most := int64(r.Attempts)
	if !s.gateway {
		most = max(most, maxSaidAttempts)
	}
	s.add(`local attempts = said(headers, %s, 0)`, quoted(r.Header))
	s.add(`if attempts then headers:replace(%s, string.format("%%d", math.min(attempts, %d))) end`, quoted(attemptsHeader), most)
}

func (s *script) faults(f *model.Fault) {
	d, a := f.Delay, f.Abort
	delays := d != nil && (d.Header != "" || d.Mean > 0)
	aborts := a != nil && (a.Header != "" || a.IsGRPC)
	if !delays && !aborts {
		return
	}
	for _, name := range faultHeaders() {
		s.add(`headers:remove(%s)`, quoted(name))
	}
	if delays {
		s.add(`local delay`)
		if d.Header != "" {
			s.add(`delay = said(headers, %s, 0)`, quoted(d.Header))
			s.add(`if delay then delay = math.min(delay, %d) end`, s.atMost(max(d.Fixed, d.Mean)))
		}
		if d.Mean > 0 {
			s.draws = true
			s.add(`delay = delay or math.min(-%d * math.log(1 - math.random()), %d)`, d.Mean.Milliseconds(), max(d.Mean, maxSaidDuration).Milliseconds())
		} else {
			s.add(`delay = delay or %d`, d.Fixed.Milliseconds())
		}
		s.add(`headers:add(%s, string.format("%%d", delay + 0.5))`, quoted(faultDelayHeader))
	}
	switch {
	case !aborts:
	case a.IsGRPC:
		s.add(`local status = %s`, s.status(a, a.GRPCStatus, 1, 16))
		s.add(`if (headers:get("content-type") or ""):sub(1, 16) == "application/grpc" then`)
		s.add(`  headers:add(%s, string.format("%%d", status))`, quoted(faultGRPCStatusHeader))
		s.add(`else`)
		s.add(`  headers:add(%s, ({%s})[status])`, quoted(faultHTTPStatusHeader), httpStatusesOfGRPC)
		s.add(`end`)
	default:
		s.add(`headers:add(%s, string.format("%%d", %s))`, quoted(faultHTTPStatusHeader), s.status(a, a.HTTPStatus, 200, 599))
	}
}

// httpStatusesOfGRPC are what callers who do not speak gRPC get for its statuses from 1 on.
const httpStatusesOfGRPC = `"499", "500", "400", "504", "404", "409", "403", "429", "400", "409", "400", "501", "500", "503", "500", "401"`

// status is the rule's own one, or the request's where that is from least to most.
func (s *script) status(a *model.Abort, own uint32, least, most int) string {
	if a.Header == "" {
		return strconv.FormatUint(uint64(own), 10)
	}
	s.add(`local asked = said(headers, %s, %d)`, quoted(a.Header), least)
	return fmt.Sprintf("asked and asked <= %d and asked or %d", most, own)
}

// String is the program. Its generator of random numbers begins where this thread's memory lies, which no two have in common.
func (s *script) String() string {
	var b strings.Builder
	if s.draws {
		b.WriteString("math.randomseed((tonumber(tostring({}):match(\"0x(%x+)\") or \"0\", 16) % 2147483648) + os.time())\n")
	}
	b.WriteString(`local function said(headers, name, least)
  local text = headers:get(name)
  if text and #text <= 12 and text:match("^%d+$") and tonumber(text) >= least then return tonumber(text) end
end
function envoy_on_request(handle)
  local headers = handle:headers()
`)
	for _, line := range s.lines {
		b.WriteString("  " + line + "\n")
	}
	b.WriteString("end\n")
	return b.String()
}

// quoted is text as the language writes it. Names of headers hold neither line ends nor backslashes.
func quoted(text string) string { return `"` + strings.ReplaceAll(text, `"`, "") + `"` }
