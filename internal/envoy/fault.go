package envoy

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	commonfaultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/fault/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	luav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/lua/v3"

	"github.com/meshctl/meshctl/internal/model"
)

// Headers in which the fault filter is told a request's own fault. They are taken off before the request goes on.
const (
	faultDelayHeader       = "x-envoy-fault-delay-request"
	faultHTTPStatusHeader  = "x-envoy-fault-abort-request"
	faultGRPCStatusHeader  = "x-envoy-fault-abort-grpc-request"
	faultDelayShareHeader  = faultDelayHeader + "-percentage"
	faultStatusShareHeader = faultHTTPStatusHeader + "-percentage"
)

// faultHeaders are all of them.
func faultHeaders() []string {
	return []string{faultDelayHeader, faultHTTPStatusHeader, faultGRPCStatusHeader, faultDelayShareHeader, faultStatusShareHeader}
}

// fault is the per-route configuration of the fault filter; nil when nothing is injected.
func fault(f *model.Fault) *faultv3.HTTPFault {
	if f == nil {
		return nil
	}
	out := &faultv3.HTTPFault{}
	if d := f.Delay; d != nil {
		out.Delay = &commonfaultv3.FaultDelay{Percentage: percent(d.Percent)}
		if d.Header != "" || d.Mean > 0 {
			out.Delay.FaultDelaySecifier = &commonfaultv3.FaultDelay_HeaderDelay_{HeaderDelay: &commonfaultv3.FaultDelay_HeaderDelay{}}
		} else {
			out.Delay.FaultDelaySecifier = &commonfaultv3.FaultDelay_FixedDelay{FixedDelay: duration(d.Fixed)}
		}
	}
	if a := f.Abort; a != nil {
		out.Abort = &faultv3.FaultAbort{Percentage: percent(a.Percent)}
		// A status of gRPC is one of HTTP to callers who speak that: the script tells them apart.
		if a.Header != "" || a.IsGRPC {
			out.Abort.ErrorType = &faultv3.FaultAbort_HeaderAbort_{HeaderAbort: &faultv3.FaultAbort_HeaderAbort{}}
		} else {
			out.Abort.ErrorType = &faultv3.FaultAbort_HttpStatus{HttpStatus: a.HTTPStatus}
		}
	}
	if out.Delay == nil && out.Abort == nil {
		return nil
	}
	return out
}

// said is the script that gives requests of a rule what they say in headers, and what is drawn anew for each; nil when there is nothing of either.
func (c *caller) said(rule *model.Rule) *luav3.LuaPerRoute {
	s := &script{gateway: c.role == model.Ingress}
	if rule.TimeoutHeader != "" {
		s.timeout(rule)
	}
	if r := rule.Retry; r != nil && r.Header != "" {
		s.attempts(r)
	}
	if f := rule.Fault; f != nil {
		s.faults(f)
	}
	if len(s.lines) == 0 {
		return nil
	}
	return &luav3.LuaPerRoute{Override: &luav3.LuaPerRoute_SourceCode{SourceCode: &corev3.DataSource{
		Specifier: &corev3.DataSource_InlineString{InlineString: s.String()},
	}}}
}
