package model_test

import (
	"testing"

	"github.com/meshctl/meshctl/internal/model"
)

func TestKeepLeavesWhatDidNotChangeTheSame(t *testing.T) {
	service := func(name string, ports ...uint32) *model.Service {
		s := &model.Service{Hostname: name}
		for _, p := range ports {
			s.Ports = append(s.Ports, model.Port{Number: p})
		}
		return s
	}
	old := &model.Mesh{
		Services: []*model.Service{service("a", 1), service("b", 2), service("c", 3), service("d", 4)},
		Rules:    []*model.Rule{{Host: "a", Ref: model.Ref{Name: "r"}}},
	}
	now := &model.Mesh{
		Services: []*model.Service{service("a", 1), service("aa", 1), service("b", 9), service("d", 4)},
		Rules:    []*model.Rule{{Host: "a", Ref: model.Ref{Name: "r"}}},
	}
	b := now.Services[2]
	now.Keep(old)
	if now.Services[0] != old.Services[0] || now.Services[3] != old.Services[3] {
		t.Error("an equal service is another object")
	}
	if now.Services[2] != b || now.Services[1].Hostname != "aa" {
		t.Error("a service that changed, or is new, is not what it was made")
	}
	if &now.Rules[0] != &old.Rules[0] {
		t.Error("an equal list is another list")
	}
}
